package api

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// headerPreferenceApplied tells the client which of its preferences was honoured.
const headerPreferenceApplied = "Preference-Applied"

// get answers with the counter, without changing it.
func (s *server) get(c echo.Context) error {
	key, err := pathKey(c)
	if err != nil {
		return err
	}
	query, err := readAwaited(c)
	if err != nil {
		return err
	}
	r := s.one(c, counter.Operation{Key: key, Kind: counter.Get}, writepath.Options{Wait: query.wait, Version: query.version})
	switch {
	case r.Err != nil:
		return r.Err
	case r.Counter.Exists:
		answerCounter(c, r.Counter, query.wait > 0)
	case query.wait > 0 && !r.Counter.Synced && r.Counter.Version > 0:
		answerDeleted(c, r.Counter)
	default:
		return &counter.Error{Code: counter.CodeNotFound, Detail: "there is no counter of this key"}
	}
	return nil
}

// increment adds to the counter. Without a body, or without by in it, it adds 1.
func (s *server) increment(c echo.Context) error {
	key, err := pathKey(c)
	if err != nil {
		return err
	}
	id, err := requestIdempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	by, found, err := readInteger(c, fieldBy)
	if err != nil {
		return err
	}
	if !found {
		by = 1
	}
	return s.change(c, counter.Operation{Key: key, Kind: counter.Increment, Amount: by, ID: id})
}

// set gives the counter a value.
func (s *server) set(c echo.Context) error {
	key, err := pathKey(c)
	if err != nil {
		return err
	}
	id, err := requestIdempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	value, found, err := readInteger(c, fieldValue)
	if err != nil {
		return err
	}
	if !found {
		return invalidBody(`value is missing: the body takes {"value": 42}`)
	}
	return s.change(c, counter.Operation{Key: key, Kind: counter.Set, Amount: value, ID: id})
}

// remove deletes the counter. One that is not there is none afterwards either: that is no error.
func (s *server) remove(c echo.Context) error {
	key, err := pathKey(c)
	if err != nil {
		return err
	}
	id, err := requestIdempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	prefers := readPreferences(c.Request().Header)
	options, err := prefers.options()
	if err != nil {
		return err
	}
	r := s.one(c, counter.Operation{Key: key, Kind: counter.Delete, ID: id}, options)
	if r.Err != nil {
		return r.Err
	}
	sayReplayed(c, r.Replayed)
	late := prefers.forPostgres() && !r.Counter.Synced
	prefers.applied(c, prefers.minimal && !late)
	if late {
		r.Counter.Key = key
		answerDeleted(c, r.Counter)
	} else {
		noContent(c)
	}
	return nil
}

// change carries out an increment or a set and answers as the client prefers. That Postgres does not have it in time is said
// also to one that wants no value.
func (s *server) change(c echo.Context, op counter.Operation) error {
	prefers := readPreferences(c.Request().Header)
	options, err := prefers.options()
	if err != nil {
		return err
	}
	r := s.one(c, op, options)
	if r.Err != nil {
		return r.Err
	}
	sayReplayed(c, r.Replayed)
	nothing := prefers.minimal && (!prefers.forPostgres() || r.Counter.Synced)
	prefers.applied(c, nothing)
	if nothing {
		noContent(c)
		return nil
	}
	r.Counter.SyncedVersion = 0 // it is the version
	answerCounter(c, r.Counter, prefers.forPostgres())
	return nil
}

// one carries out a single operation. An error of it is counted by fail, its success here.
func (s *server) one(c echo.Context, op counter.Operation, options writepath.Options) counter.Result {
	r := s.do(c, []counter.Operation{op}, options)[0]
	if r.Err == nil {
		s.metrics.succeeded(op.Kind, r.Replayed)
	}
	return r
}

// do carries operations out, and times them unless they are a read or wait for Postgres.
func (s *server) do(c echo.Context, ops []counter.Operation, options writepath.Options) []counter.Result {
	if ops[0].Kind != counter.Get && options.Wait == 0 {
		defer s.metrics.wrote(time.Now())
	}
	return s.counters.Do(c.Request().Context(), ops, options)
}

// readInteger reads a body that holds one integer, or nothing.
func readInteger(c echo.Context, field string) (n int64, found bool, err error) {
	b, err := openBody(c, MaxBodyBytes, nil)
	if b == nil || err != nil {
		return 0, false, err
	}
	defer b.close()
	return b.integerField(field)
}

// answerCounter answers 200, or 202 when the write was accepted while the value is not known; or, where Postgres was waited
// for, when it does not have it.
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

// answerDeleted answers 202: Postgres does not have it that the counter is deleted.
func answerDeleted(c echo.Context, value counter.Counter) {
	b := getBuffer()
	defer putBuffer(b)
	b.bytes = appendDeleted(b.bytes, value)
	write(c, http.StatusAccepted, jsonType, b.bytes)
}
