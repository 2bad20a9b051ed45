package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// Flusher has the workers flush and returns what Postgres still lacks. *operate.Service implements it.
type Flusher interface {
	// Flush flushes keys, or all counters if keys is nil. It waits for the flush for up to timeout.
	Flush(ctx context.Context, keys []counter.Key, timeout time.Duration) (operate.Left, error)
}

// maxFlushes bounds the concurrent flushes: each reads every shard ten times a second.
const maxFlushes = 4

// flush has the workers flush everything, or the keys in the body. It answers with the number of keys that are left.
func (s *server) flush(c echo.Context) error {
	keys, err := s.readFlush(c)
	if err != nil {
		return err
	}
	if err := permittedFlush(c, keys); err != nil {
		return err
	}
	prefers := readPreferences(c.Request().Header)
	timeout := prefers.wait
	if !prefers.waitGiven {
		timeout = defaultWait
	}
	left, err := s.flushWithin(c, keys, timeout)
	switch {
	case err == nil:
	case !errors.Is(err, context.Canceled):
		return err
	case left.Dirty == 0: // it was canceled before it knew what is left, so a 200 could be wrong
		return overloaded("the process is stopping, and it is not known what is left: flush again")
	}
	prefers.applied(c, false)
	answerLeft(c, left)
	return nil
}

// flushWithin has the workers flush keys, or everything if keys is nil, and waits for up to timeout. Its error is a *counter.Error, or
// context.Canceled if the client has left or the process shuts down.
func (s *server) flushWithin(c echo.Context, keys []counter.Key, timeout time.Duration) (operate.Left, error) {
	select {
	case s.flushes <- struct{}{}:
		defer func() { <-s.flushes }()
	default:
		return operate.Left{}, overloaded("too many flushes are in progress; this one was not started")
	}
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	defer context.AfterFunc(s.Shutdown, cancel)()
	left, err := s.Flusher.Flush(ctx, keys, timeout)
	switch {
	case err != nil && ctx.Err() != nil:
		return left, context.Canceled
	case err != nil:
		return left, operate.Explain(err)
	}
	return left, nil
}

// answerLeft answers 200 if left.Dirty is 0, which does not count dead letters, and 202 otherwise.
func answerLeft(c echo.Context, left operate.Left) {
	status := http.StatusOK
	if left.Dirty > 0 {
		status = http.StatusAccepted
	}
	b := strconv.AppendInt([]byte(`{"dirty":`), left.Dirty, 10)
	b = strconv.AppendInt(append(b, `,"retrying":`...), left.Retrying, 10)
	b = strconv.AppendInt(append(b, `,"dead":`...), left.Dead, 10)
	write(c, status, jsonType, append(b, '}'))
}

// readFlush returns the keys to flush, or nil for all. A body needs admission: it may be large and arrives before the flush is
// started.
func (s *server) readFlush(c echo.Context) (keys []counter.Key, err error) {
	if c.Request().ContentLength == 0 {
		return nil, nil
	}
	err = s.admitBody(c, func(b *body) error {
		if b == nil {
			return nil
		}
		return b.whole(func(name jsontext.Value) (known bool, err error) {
			if !isString(name, "keys") {
				return false, nil
			}
			keys, err = b.keys(operate.MaxFlushKeys)
			return true, err
		})
	})
	return keys, err
}
