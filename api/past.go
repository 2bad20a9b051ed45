package api

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// getAt answers with the counter as it was at a time.
func (s *server) getAt(c echo.Context, key counter.Key) error {
	at, err := parseAt(c.Request().URL.RawQuery)
	if err != nil {
		return err
	}
	if s.Historian == nil {
		return &counter.Error{Code: counter.CodeNotFound, Detail: "no counter has a history here"}
	}
	r, err := s.Historian.At(c.Request().Context(), key, at)
	if future, ok := errors.AsType[*catalog.FutureError](err); ok {
		return invalidQuery("at is in the future: it is %s", catalog.TimeText(future.Now))
	}
	switch {
	case err != nil:
		return err
	case r.Deleted:
		return &counter.Error{
			Code: counter.CodeNotFound, Detail: "the counter did not exist then: it had been deleted at " + catalog.TimeText(r.At),
		}
	}
	s.metrics.CountSuccess(counter.Get, 1, false)
	if !notModified(c, r.Version) {
		answerPast(c, key, at, r)
	}
	return nil
}

// parseAt returns the time of a query with at, which is a time or a number of milliseconds.
func parseAt(rawQuery string) (at time.Time, err error) {
	values, err := parseQuery(rawQuery, "at")
	switch {
	case err != nil:
		return at, err
	case values.Has("wait"):
		return at, invalidQuery("wait cannot be combined with at")
	}
	if ms, err := strconv.ParseInt(values.Get("at"), 10, 64); err == nil {
		if ms < 0 || ms > maxMilliseconds {
			return at, invalidQuery("at must be 0 to %d milliseconds, not %d", int64(maxMilliseconds), ms)
		}
		return time.UnixMilli(ms), nil
	}
	return queryTime(values, "at")
}

// maxMilliseconds is the end of the year 9998, which Postgres and RFC 3339 can still have.
const maxMilliseconds = 253_370_764_799_999

// hasAt reports whether a query has the parameter at.
func hasAt(rawQuery string) bool {
	if rawQuery == "" {
		return false
	}
	values, _ := url.ParseQuery(rawQuery) // has what it can parse; parseAt reports the rest
	return values.Has("at")
}

func answerPast(c echo.Context, key counter.Key, at time.Time, r catalog.Recorded) {
	buffer := getBuffer()
	defer putBuffer(buffer)
	buffer.bytes = appendPast(buffer.bytes, key, at, r)
	write(c, http.StatusOK, jsonType, buffer.bytes)
}

func appendPast(b []byte, key counter.Key, at time.Time, r catalog.Recorded) []byte {
	b = appendString(append(b, `{"key":`...), string(key))
	b = appendNumber(append(b, `,"value":`...), r.Value, r.Known)
	b = strconv.AppendInt(append(b, `,"version":`...), r.Version, 10)
	b = appendString(append(b, `,"at":`...), catalog.TimeText(at))
	b = appendString(append(b, `,"since":`...), catalog.TimeText(r.At))
	b = strconv.AppendBool(append(b, `,"synced":`...), r.Synced)
	return append(b, '}')
}
