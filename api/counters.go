package api

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// Headers of requests and answers.
const (
	headerIdempotencyKey    = "Idempotency-Key"
	headerReplayed          = "Idempotent-Replayed" // the answer repeats that of an earlier request
	headerPreferenceApplied = "Preference-Applied"  // the preferences that were honoured
)

// get answers with the counter.
func (s *server) get(c echo.Context) error {
	key, err := permittedKey(c)
	if err != nil {
		return err
	}
	if hasAt(c.Request().URL.RawQuery) {
		return s.getAt(c, key)
	}
	query, err := parseReadWait(c)
	if err != nil {
		return err
	}
	r := s.do(c, writepath.Options{Wait: query.wait, Version: query.version}, counter.Operation{Key: key, Kind: counter.Get})[0]
	switch {
	case r.Err != nil:
		return r.Err
	case r.Counter.Exists && (query.wait == 0 || r.Counter.Synced):
		answerRead(c, r.Counter)
	case r.Counter.Exists:
		answerCounter(c, r.Counter, true)
	case query.wait > 0 && !r.Counter.Synced && r.Counter.Version > 0:
		answerDeleted(c, r.Counter)
	default:
		return noCounter()
	}
	return nil
}

func noCounter() error {
	return &counter.Error{Code: counter.CodeNotFound, Detail: "there is no counter with this key"}
}

// increment adds to the counter: 1 if the body is missing or has no by.
func (s *server) increment(c echo.Context) error { return s.change(c, counter.Increment) }

// set sets the counter to a value.
func (s *server) set(c echo.Context) error { return s.change(c, counter.Set) }

// remove deletes the counter. Deleting a counter that does not exist is not an error.
func (s *server) remove(c echo.Context) error { return s.change(c, counter.Delete) }

// change carries out a write and answers as the client prefers. A client that asked for no value still gets an answer with a
// body if Postgres did not have the write in time.
func (s *server) change(c echo.Context, kind counter.Kind) error {
	op, err := readOperation(c, kind)
	if err != nil {
		return err
	}
	prefers := readPreferences(c.Request().Header)
	options, err := prefers.options()
	if err != nil {
		return err
	}
	r := s.do(c, options, op)[0]
	if r.Err != nil {
		return r.Err
	}
	setReplayed(c, r.Replayed)
	late := prefers.waitsForPostgres() && !r.Counter.Synced
	prefers.applied(c, prefers.minimal && !late)
	switch {
	case !late && (prefers.minimal || kind == counter.Delete):
		noContent(c)
	case kind == counter.Delete:
		r.Counter.Key = op.Key
		answerDeleted(c, r.Counter)
	default:
		r.Counter.SyncedVersion = 0 // omit it: after a write it equals version
		answerCounter(c, r.Counter, prefers.waitsForPostgres())
	}
	return nil
}

// readOperation reads the key, the Idempotency-Key, the amount and the condition of a write.
func readOperation(c echo.Context, kind counter.Kind) (op counter.Operation, err error) {
	op.Kind = kind
	if op.Key, err = permittedKey(c); err != nil {
		return op, err
	}
	if op.ID, err = requestIdempotencyKey(c.Request().Header); err != nil {
		return op, err
	}
	if err := readAmount(c, &op); err != nil {
		return op, err
	}
	op.Condition, err = ifMatch(c.Request().Header, op.Condition)
	return op, err
}

// readAmount reads the amount and the bounds of a write from its body. A delete has no body.
func readAmount(c echo.Context, op *counter.Operation) error {
	if op.Kind == counter.Delete {
		return nil
	}
	b, err := openBody(c, MaxBodyBytes, nil)
	if err != nil {
		return err
	}
	if b == nil {
		return new(operationBody).amount(op)
	}
	defer b.close()
	return b.amount(op)
}

// requestIdempotencyKey returns the request's Idempotency-Key, or "" if it has none. Quotes are part of the key.
func requestIdempotencyKey(h http.Header) (string, error) {
	given := h[headerIdempotencyKey]
	switch len(given) {
	case 0:
		return "", nil
	case 1:
		return counter.ParseID(given[0])
	default:
		return "", &counter.Error{
			Code:   counter.CodeInvalidIdempotencyKey,
			Detail: fmt.Sprintf("the request has %d %s headers: send one", len(given), headerIdempotencyKey),
		}
	}
}

// setReplayed sets the header of an answer that repeats an earlier one.
func setReplayed(c echo.Context, replayed bool) {
	if replayed {
		c.Response().Header().Set(headerReplayed, "true")
	}
}

// do carries out operations and counts those that succeed. It measures the duration of writes that do not wait for Postgres.
func (s *server) do(c echo.Context, options writepath.Options, ops ...counter.Operation) []counter.Result {
	if ops[0].Kind != counter.Get && options.Wait == 0 {
		defer s.metrics.ObserveWrite(time.Now())
	}
	if s.recording {
		if err := s.setOrigins(c, ops); err != nil {
			return slices.Repeat([]counter.Result{{Err: err}}, len(ops))
		}
	}
	results := s.counters.Do(c.Request().Context(), ops, options)
	for i, op := range ops {
		if r := results[i]; r.Err == nil {
			s.metrics.CountSuccess(op.Kind, 1, r.Replayed)
		}
	}
	return results
}

// answerCounter answers 202 if the client waited for Postgres and Postgres lacks the counter, or if it did not wait and the
// value is not known. Otherwise it answers 200.
func answerCounter(c echo.Context, value counter.Counter, waited bool) {
	b := getBuffer()
	defer putBuffer(b)
	b.bytes = appendCounter(b.bytes, value)
	status := http.StatusOK
	if (waited && !value.Synced) || (!waited && !value.Known) {
		status = http.StatusAccepted
	}
	write(c, status, jsonType, b.bytes)
}

// answerDeleted answers 202, because the delete has not reached Postgres yet.
func answerDeleted(c echo.Context, value counter.Counter) {
	b := getBuffer()
	defer putBuffer(b)
	b.bytes = appendDeleted(b.bytes, value)
	write(c, http.StatusAccepted, jsonType, b.bytes)
}
