package api

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Lister lists counters. *catalog.Catalog implements it.
type Lister interface {
	// List returns a page of the counters whose keys begin with prefix and are greater than after. Every error is a *counter.Error.
	List(ctx context.Context, prefix string, after counter.Key, limit int) (catalog.Page, error)
	// Top returns the n largest counters whose keys begin with prefix. Every error is a *counter.Error.
	Top(ctx context.Context, prefix string, n int) (catalog.Top, error)
}

// defaultListed is the number of counters on a page if the query has no limit.
const defaultListed = 100

// listQuery holds the parameters of a list.
type listQuery struct {
	prefix string
	after  counter.Key // the last key of the page before; "" for the first page
	limit  int
}

// list answers with a page of counters in the order of their keys. With Prefer: wait it flushes before, so that the list has every write
// that was acknowledged before the request. It answers 202 if it cannot promise that.
func (s *server) list(c echo.Context) error {
	query, err := parseList(c.Request().URL.RawQuery, keyOf(c))
	if err != nil {
		return err
	}
	prefers := readPreferences(c.Request().Header)
	complete := false
	if prefers.wait > 0 {
		if complete, err = s.flushAll(c, prefers.wait); err != nil {
			return err
		}
	}
	page, err := s.Lister.List(c.Request().Context(), query.prefix, query.after, query.limit)
	if err != nil {
		return err
	}
	s.countFailures(c, page.Results)
	status := http.StatusOK
	if prefers.wait > 0 && !complete {
		status = http.StatusAccepted
	}
	if complete {
		c.Response().Header().Set(headerPreferenceApplied, "wait="+strconv.Itoa(int(prefers.wait/time.Second)))
	}
	answerPage(c, status, page)
	return nil
}

// flushAll flushes everything that is dirty, for at most timeout. It reports whether Postgres has it. Dead letters count as missing: one
// that was never flushed has no row.
func (s *server) flushAll(c echo.Context, timeout time.Duration) (complete bool, err error) {
	if s.Flusher == nil {
		return false, nil
	}
	left, err := s.flushWithin(c, nil, timeout)
	switch {
	case errors.Is(err, context.Canceled):
		return false, nil // the client has left, or the process is shutting down
	case err != nil:
		return false, err
	}
	return left.Dirty == 0 && left.Dead == 0, nil
}

// defaultTop is the number of counters of a top if the query has no n.
const defaultTop = 10

// top answers with the largest counters.
func (s *server) top(c echo.Context) error {
	values, err := parseQuery(c.Request().URL.RawQuery, "prefix", "n")
	if err != nil {
		return err
	}
	prefix, err := queryPrefix(values)
	if err == nil {
		prefix, err = keyOf(c).Within(prefix)
	}
	if err != nil {
		return err
	}
	n, err := queryNumber(values, "n", defaultTop, catalog.MaxTop)
	if err != nil {
		return err
	}
	top, err := s.Lister.Top(c.Request().Context(), prefix, n)
	if err != nil {
		return err
	}
	s.countFailures(c, top.Results)
	buffer := getBuffer()
	defer putBuffer(buffer)
	b := append(appendCounters(buffer.bytes, top.Results), `,"complete":`...)
	buffer.bytes = append(strconv.AppendBool(b, top.Complete), '}')
	write(c, http.StatusOK, jsonType, buffer.bytes)
	return nil
}

// answerPage answers with a page of a list.
func answerPage(c echo.Context, status int, page catalog.Page) {
	buffer := getBuffer()
	defer putBuffer(buffer)

	b := appendCounters(buffer.bytes, page.Results)
	b = append(b, `,"next_cursor":`...)
	if page.Next == "" {
		b = append(b, `null`...)
	} else {
		b = appendString(b, base64.RawURLEncoding.EncodeToString([]byte(page.Next)))
	}
	b = append(b, '}')
	buffer.bytes = b
	write(c, status, jsonType, b)
}

// appendCounters begins an object with the field counters: the counter of each result, or the error in its place.
func appendCounters(b []byte, results []counter.Result) []byte {
	b = append(b, `{"counters":[`...)
	for i, r := range results {
		if i > 0 {
			b = append(b, ',')
		}
		if r.Err != nil {
			b = appendFailed(b, r.Counter.Key, asProblem(r.Err))
		} else {
			b = appendCounter(b, r.Counter)
		}
	}
	return append(b, ']')
}

// parseList parses prefix, limit and cursor. The list has only counters that the API key may use.
func parseList(rawQuery string, key *auth.Key) (q listQuery, err error) {
	values, err := parseQuery(rawQuery, "prefix", "limit", "cursor")
	if err != nil {
		return q, err
	}
	if q.prefix, err = queryPrefix(values); err != nil {
		return q, err
	}
	if q.prefix, err = key.Within(q.prefix); err != nil {
		return q, err
	}
	if q.limit, err = queryNumber(values, "limit", defaultListed, catalog.MaxPage); err != nil {
		return q, err
	}
	if values.Has("cursor") {
		q.after, err = parseCursor(values.Get("cursor"), q.prefix)
	}
	return q, err
}

// parseQuery parses a query strictly: a prefix that was left out because it cannot be decoded would list all counters. None of names may
// be given twice.
func parseQuery(rawQuery string, names ...string) (url.Values, error) {
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, invalidQuery("the query's percent-encoding is invalid, or it has a semicolon: encode it as %%3B")
	}
	for _, name := range names {
		if len(values[name]) > 1 {
			return nil, invalidQuery("%s is given more than once", name)
		}
	}
	return values, nil
}

// queryPrefix returns the prefix of a query: "" or the beginning of a key.
func queryPrefix(values url.Values) (string, error) {
	prefix := values.Get("prefix")
	if prefix == "" {
		return "", nil
	}
	if _, err := counter.ParseKey(prefix); err != nil {
		detail := err.Error()
		if e, ok := errors.AsType[*counter.Error](err); ok {
			detail = e.Detail
		}
		return "", invalidQuery("prefix must be the beginning of a key, but %s", detail)
	}
	return prefix, nil
}

// queryNumber returns a number of 1 to most, or fallback if the query does not have it.
func queryNumber(values url.Values, name string, fallback, most int) (int, error) {
	if !values.Has(name) {
		return fallback, nil
	}
	n, err := strconv.Atoi(values.Get(name))
	if err != nil || n < 1 || n > most {
		return 0, invalidQuery("%s must be 1 to %d, not %s", name, most, excerpt(values.Get(name)))
	}
	return n, nil
}

// parseCursor returns the key in a cursor: the last key of the page before.
func parseCursor(cursor, prefix string) (counter.Key, error) {
	text, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err == nil {
		var key counter.Key
		if key, err = counter.ParseKey(string(text)); err == nil && strings.HasPrefix(string(key), prefix) {
			return key, nil
		}
	}
	return "", invalidQuery("cursor must be the next_cursor of the page before, with the same prefix, not %s", excerpt(cursor))
}
