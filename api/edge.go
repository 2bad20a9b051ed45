package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxRequestIDBytes bounds what is taken over from a client into logs and back. An UUID has 36, a W3C trace 55.
const maxRequestIDBytes = 128

// edge is around every request, wrong paths included.
func (s *server) edge(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		r := c.Request()
		c.Response().Header().Set(echo.HeaderXRequestID, requestID(r.Header.Get(echo.HeaderXRequestID)))
		routeByRawPath(r)
		if s.stopping() {
			c.Response().Header().Set(echo.HeaderConnection, "close")
		}
		defer func() {
			if v := recover(); v != nil {
				err = s.recovered(c, v)
			}
		}()
		return next(c)
	}
}

// routeByRawPath makes Echo's router, which takes URL.RawPath where it is set and the decoded URL.Path else, see the
// path as it was sent in every case. net/http leaves RawPath empty when encoding Path again gives what was sent; else a key
// would be decoded twice or not depending on what else is in it ("%2541" must be "%41", not "A").
func routeByRawPath(r *http.Request) {
	if r.URL.RawPath == "" {
		r.URL.RawPath = r.URL.EscapedPath()
	}
}

// recovered turns a panic into the answer 500. Where the answer has begun already it cannot be taken back: the connection
// is cut, so that the client does not take a part for the whole.
func (s *server) recovered(c echo.Context, v any) error {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v) // net/http's own way to cut a connection
	}
	s.log.ErrorContext(logContext(c), "panic", "request_id", answerID(c), "method", c.Request().Method, "route", c.Path(),
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if c.Response().Committed {
		panic(http.ErrAbortHandler)
	}
	return &counter.Error{Code: counter.CodeInternal}
}

// requestID returns given where it is fit to be logged and sent back (visible ASCII, bounded), else a new one.
func requestID(given string) string {
	if given == "" || len(given) > maxRequestIDBytes {
		return rand.Text()
	}
	for i := range len(given) {
		if given[i] <= ' ' || given[i] > '~' {
			return rand.Text()
		}
	}
	return given
}

// answerID returns the ID that edge has given to the request.
func answerID(c echo.Context) string {
	return c.Response().Header().Get(echo.HeaderXRequestID)
}
