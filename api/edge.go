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

// maxRequestIDBytes bounds a client's request ID, which is logged and sent back. A UUID has 36 bytes, a W3C traceparent 55.
const maxRequestIDBytes = 128

// edge wraps every request, including requests that match no route. It assigns the request ID and recovers panics.
func (s *server) edge(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		r := c.Request()
		c.Response().Header().Set(echo.HeaderXRequestID, safeRequestID(r.Header.Get(echo.HeaderXRequestID)))
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

// routeByRawPath makes Echo's router use the path as it was sent. Without it, a key would be decoded once or twice depending
// on its other characters ("%2541" must become "%41", not "A"). The router uses URL.RawPath if it is set and the decoded
// URL.Path otherwise. net/http leaves RawPath empty if encoding Path again gives the path that was sent.
func routeByRawPath(r *http.Request) {
	if r.URL.RawPath == "" {
		r.URL.RawPath = r.URL.EscapedPath()
	}
}

// recovered turns a panic into a 500 answer. If part of the answer was already sent, it closes the connection, so that the
// client sees that the answer is incomplete.
func (s *server) recovered(c echo.Context, v any) error {
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v) // net/http closes the connection on this panic
	}
	s.Logger.ErrorContext(logContext(c), "panic", "request_id", requestID(c), "method", c.Request().Method, "route", c.Path(),
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if c.Response().Committed {
		panic(http.ErrAbortHandler)
	}
	return &counter.Error{Code: counter.CodeInternal}
}

// safeRequestID returns the client's request ID if it is short visible ASCII, and a new one otherwise.
func safeRequestID(clientID string) string {
	if clientID == "" || len(clientID) > maxRequestIDBytes {
		return rand.Text()
	}
	for i := range len(clientID) {
		if clientID[i] <= ' ' || clientID[i] > '~' {
			return rand.Text()
		}
	}
	return clientID
}

// requestID returns the request ID that edge assigned.
func requestID(c echo.Context) string {
	return c.Response().Header().Get(echo.HeaderXRequestID)
}

// countersPath precedes the key in a path.
const countersPath = "/v1/counters/"

// pathKey returns the key in the path. Echo passes the parameter as it was sent (see routeByRawPath), so it is decoded only
// here. '+' stays '+', because it means a space only in queries and forms.
func pathKey(c echo.Context) (counter.Key, error) {
	return decodeKey(c.Param("key"))
}

func decodeKey(encoded string) (counter.Key, error) {
	key, err := url.PathUnescape(encoded)
	if err != nil { // net/http already rejects such a path
		return "", &counter.Error{Code: counter.CodeInvalidKey, Detail: "the key's percent-encoding is invalid"}
	}
	return counter.ParseKey(key)
}

// notFound returns the 404 for a path that matches no route.
func notFound(path string) error {
	rest, isCounter := strings.CutPrefix(path, countersPath)
	switch {
	case isCounter && rest == "":
		_, err := counter.ParseKey("") // the key is empty, which is a 400
		return err
	case isCounter && strings.Contains(rest, "/"):
		return &counter.Error{
			Code:   counter.CodeNotFound,
			Detail: "there is nothing at this path; if the key has a slash, percent-encode it as %2F",
		}
	default:
		return &counter.Error{Code: counter.CodeNotFound, Detail: "there is nothing at this path; see /v1/openapi.yaml"}
	}
}

// methodNotAllowed names the methods of the path, which Echo has put into the Allow header.
func methodNotAllowed(answer http.Header) error {
	return &counter.Error{Code: counter.CodeMethodNotAllowed, Detail: "this path has the methods " + answer.Get(echo.HeaderAllow)}
}
