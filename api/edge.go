package api

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxRequestIDBytes bounds a client's request ID, which is logged and sent back. A UUID has 36 bytes, a W3C trace 55.
const maxRequestIDBytes = 128

// edge wraps every request, wrong paths included: it assigns the request ID and recovers panics.
func (s *server) edge(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		r := c.Request()
		c.Response().Header().Set(echo.HeaderXRequestID, requestID(r.Header.Get(echo.HeaderXRequestID)))
		routeByRawPath(r)
		if s.Stopping() {
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

// routeByRawPath makes Echo's router use the path as it was sent. The router takes URL.RawPath if it is set, else the decoded
// URL.Path, and net/http leaves RawPath empty if encoding Path again gives what was sent. So a key would be decoded once or
// twice depending on its other characters ("%2541" must become "%41", not "A").
func routeByRawPath(r *http.Request) {
	if r.URL.RawPath == "" {
		r.URL.RawPath = r.URL.EscapedPath()
	}
}

// recovered turns a panic into the answer 500. If the answer has begun, it cuts the connection instead, so that the client
// does not take a part for the whole.
func (s *server) recovered(c echo.Context, v any) error {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v) // net/http's own way to cut a connection
	}
	s.Logger.ErrorContext(logContext(c), "panic", "request_id", answerID(c), "method", c.Request().Method, "route", c.Path(),
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if c.Response().Committed {
		panic(http.ErrAbortHandler)
	}
	return &counter.Error{Code: counter.CodeInternal}
}

// requestID returns given if it is safe to log and to send back (visible ASCII, bounded), else a new one.
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

// answerID returns the request ID that edge assigned.
func answerID(c echo.Context) string {
	return c.Response().Header().Get(echo.HeaderXRequestID)
}

// countersPath precedes a key.
const countersPath = "/v1/counters/"

// pathKey returns the key in the path. Echo passes the parameter as it was sent (see routeByRawPath), so it is decoded only
// here. '+' stays '+': it means a space in queries and forms only.
func pathKey(c echo.Context) (counter.Key, error) {
	return decodeKey(c.Param("key"))
}

func decodeKey(encoded string) (counter.Key, error) {
	key, err := url.PathUnescape(encoded)
	if err != nil { // net/http refuses such a path earlier
		return "", &counter.Error{Code: counter.CodeInvalidKey, Detail: "the key's percent-encoding is broken"}
	}
	return counter.ParseKey(key)
}

// notFound explains a path that no route has.
func notFound(path string) error {
	rest, isCounter := strings.CutPrefix(path, countersPath)
	switch {
	case isCounter && rest == "":
		_, err := counter.ParseKey("")
		return err
	case isCounter && strings.Contains(rest, "/"):
		return &counter.Error{
			Code:   counter.CodeNotFound,
			Detail: "there is nothing at this path; if the key has a slash in it, percent-encode it as %2F",
		}
	default:
		return &counter.Error{Code: counter.CodeNotFound, Detail: "there is nothing at this path; see /v1/openapi.yaml"}
	}
}

// methodNotAllowed names the methods that the path takes, which Echo has put into the header.
func methodNotAllowed(answer http.Header) error {
	return &counter.Error{Code: counter.CodeMethodNotAllowed, Detail: "this path takes " + answer.Get(echo.HeaderAllow)}
}
