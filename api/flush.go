package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// Flusher asks the workers for a flush and returns what is left: an *operate.Service.
type Flusher interface {
	Flush(ctx context.Context, keys []counter.Key, bound time.Duration) (operate.Left, error)
}

// maxFlushes bounds the concurrent flushes: each reads every shard ten times a second.
const maxFlushes = 4

// flush asks the workers to flush everything, or the keys in the body, and answers what is left.
func (s *server) flush(c echo.Context) error {
	keys, err := readFlush(c)
	if err != nil {
		return err
	}
	select {
	case s.flushes <- struct{}{}:
		defer func() { <-s.flushes }()
	default:
		return noRoom("too many flushes are in progress; none was asked for")
	}
	prefers := readPreferences(c.Request().Header)
	bound := prefers.wait
	if !prefers.waitGiven {
		bound = defaultWait
	}
	ctx, cancel := context.WithCancel(c.Request().Context())
	defer cancel()
	defer context.AfterFunc(s.Ending, cancel)()
	left, err := s.Flusher.Flush(ctx, keys, bound)
	if err != nil && ctx.Err() == nil {
		return operate.Explain(err)
	}
	prefers.applied(c, false)
	answerLeft(c, left)
	return nil
}

// answerLeft answers 200 if nothing is dirty but dead letters, else 202.
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

// readFlush reads which keys to flush; nil for all.
func readFlush(c echo.Context) (keys []counter.Key, err error) {
	b, err := openBody(c, MaxBatchBodyBytes, nil)
	if b == nil || err != nil {
		return nil, err
	}
	defer b.close()
	err = b.whole(func(name jsontext.Value) (bool, error) {
		if !isString(name, "keys") {
			return false, nil
		}
		keys, err = b.keys(operate.MaxFlushKeys)
		return true, err
	})
	return keys, err
}
