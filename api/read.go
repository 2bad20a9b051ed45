package api

import (
	"net/http"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// readMany reads many counters, and answers with a counter or an error for each key in order.
func (s *server) readMany(c echo.Context) error {
	plan, err := s.readKeys(c)
	if err != nil {
		return err
	}
	if err := permit(c, plan); err != nil {
		return err
	}
	results := s.carryOut(c, plan, writepath.Options{})
	for i, r := range results {
		results[i].Counter.Key = plan[i].Key
		if r.Err == nil && !r.Counter.Exists {
			results[i].Err = noCounter()
		}
	}
	s.countFailures(c, results)

	outcome := summarize(results)
	if outcome.failed == len(results) && outcome.common != nil && outcome.common.Code != counter.CodeNotFound {
		writeProblem(c, outcome.common) // counted and logged by countFailures
		return nil
	}
	answerCounters(c, results)
	return nil
}

// readKeys reads the body of a read of many counters, if admission has a slot for it.
func (s *server) readKeys(c echo.Context) (plan []planned, err error) {
	err = s.admitBody(c, func(b *body) error {
		if b == nil {
			return invalidBody(`the body is empty: send {"keys": [...]}`)
		}
		plan, err = b.reads()
		return err
	})
	if err != nil {
		return nil, err
	}
	return plan, nil
}

// reads decodes a list of keys, and plans a Get of each. A key that is invalid fails alone, as in a batch.
func (b *body) reads() ([]planned, error) {
	var plan []planned
	err := b.whole(func(name jsontext.Value) (bool, error) {
		if !isString(name, "keys") {
			return false, nil
		}
		return true, b.list("keys", MaxOperations, func(int) error {
			value, err := b.value()
			if err != nil {
				return err
			}
			key, invalid := parseKey(value)
			plan = append(plan, planned{Operation: counter.Operation{Key: key, Kind: counter.Get}, err: invalid})
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, err
	case len(plan) == 0:
		return nil, invalidBody("keys is empty or missing: send 1 to %d", MaxOperations)
	}
	return plan, nil
}

// answerCounters answers with the counter of each key, or the error in its place.
func answerCounters(c echo.Context, results []counter.Result) {
	buffer := getBuffer()
	defer putBuffer(buffer)

	b := append(appendCounters(buffer.bytes, results), '}')
	buffer.bytes = b
	write(c, http.StatusOK, jsonType, b)
}
