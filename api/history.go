package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Historian reads the histories of counters. *catalog.Catalog implements it.
type Historian interface {
	// Recording reports whether some counters have a history. The answer never changes.
	Recording() bool
	// Recorded reports whether the counter has a history. It does not block.
	Recorded(key counter.Key) bool
	// History returns a part of the history of a counter. Every error is a *counter.Error.
	History(ctx context.Context, key counter.Key, span store.Span) (catalog.History, error)
	// At returns the state of a counter at a time. Every error is a *catalog.FutureError or a *counter.Error.
	At(ctx context.Context, key counter.Key, at time.Time) (catalog.Recorded, error)
}

// headerNote has the note of a write, for the history of its counter.
const headerNote = "Afterwrite-Note"

// setOrigins says where operations came from, if their counters have a history. The error is for the client: nothing may be applied.
func (s *server) setOrigins(c echo.Context, ops []counter.Operation) error {
	note, err := counter.ParseNote(c.Request().Header.Get(headerNote))
	if err != nil {
		return err
	}
	var shared *counter.Origin
	for i := range ops {
		own := ops[i].Origin // it has the note of one operation of a batch
		switch {
		case ops[i].Kind == counter.Get, !s.Historian.Recorded(ops[i].Key):
			ops[i].Origin = nil
		case own != nil:
			ops[i].Origin = s.origin(c, own.Note)
		default:
			if shared == nil {
				shared = s.origin(c, note)
			}
			ops[i].Origin = shared
		}
	}
	return nil
}

func (s *server) origin(c echo.Context, note string) *counter.Origin {
	o := &counter.Origin{Request: requestID(c), Note: note}
	if key := keyOf(c); key != nil {
		o.Caller = key.Name
	}
	return o
}

// defaultRecords is the number of operations of an answer if the query has no limit.
const defaultRecords = 100

// history answers with a part of the history of a counter.
func (s *server) history(c echo.Context) error {
	key, err := permittedKey(c)
	if err != nil {
		return err
	}
	span, err := parseSpan(c.Request().URL.RawQuery)
	if err != nil {
		return err
	}
	h, err := s.Historian.History(c.Request().Context(), key, span)
	if err != nil {
		return err
	}
	answerHistory(c, h)
	return nil
}

// parseSpan parses after, limit, from and to.
func parseSpan(rawQuery string) (span store.Span, err error) {
	values, err := parseQuery(rawQuery, "after", "limit", "from", "to")
	if err != nil {
		return span, err
	}
	if span.Limit, err = queryNumber(values, "limit", defaultRecords, catalog.MaxHistory); err != nil {
		return span, err
	}
	if values.Has("after") {
		if span.After, err = strconv.ParseInt(values.Get("after"), 10, 64); err != nil || span.After < 0 {
			return span, invalidQuery("after must be a version, not %s", excerpt(values.Get("after")))
		}
	}
	if span.From, err = queryTime(values, "from"); err != nil {
		return span, err
	}
	span.To, err = queryTime(values, "to")
	return span, err
}

// queryTime returns a time of a query, or the zero time if the query does not have it.
func queryTime(values url.Values, name string) (time.Time, error) {
	if !values.Has(name) {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, values.Get(name))
	if err != nil || at.Year() < 1 || at.Year() > 9998 {
		return at, invalidQuery("%s must be a time such as 2026-01-31T12:00:00Z, not %s", name, excerpt(values.Get(name)))
	}
	return at, nil
}

func answerHistory(c echo.Context, h catalog.History) {
	buffer := getBuffer()
	defer putBuffer(buffer)
	b := buffer.bytes
	b = append(b, `{"operations":[`...)
	for i := range h.Operations {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendRecorded(b, &h.Operations[i])
	}
	b = strconv.AppendBool(append(b, `],"more":`...), h.More)
	b = append(b, '}')
	buffer.bytes = b
	write(c, http.StatusOK, jsonType, b)
}

func appendRecorded(b []byte, r *catalog.Recorded) []byte {
	b = strconv.AppendInt(append(b, `{"version":`...), r.Version, 10)
	b = appendString(append(b, `,"operation":`...), string(r.Change))
	b = appendNumber(append(b, `,"amount":`...), r.Amount, !r.Deleted)
	b = appendNumber(append(b, `,"value":`...), r.Value, r.Known)
	b = appendString(append(b, `,"at":`...), catalog.TimeText(r.At))
	b = strconv.AppendBool(append(b, `,"synced":`...), r.Synced)
	for _, part := range [...]struct{ name, text string }{
		{`,"caller":`, r.Caller}, {`,"request_id":`, r.Request}, {`,"note":`, r.Note},
	} {
		if part.text != "" {
			b = appendString(append(b, part.name...), part.text)
		}
	}
	return append(b, '}')
}

// appendNumber appends a number, or null if it is not known.
func appendNumber(b []byte, n int64, known bool) []byte {
	if !known {
		return append(b, `null`...)
	}
	return strconv.AppendInt(b, n, 10)
}
