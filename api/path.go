package api

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// countersPath is what a key follows.
const countersPath = "/v1/counters/"

// pathKey returns the key in the path. Echo hands the parameter over as it was sent (see routeByRawPath), so this is the
// one place where it is decoded. '+' stays '+': it means a space in queries and forms only.
func pathKey(c echo.Context) (counter.Key, error) {
	return decodeKey(c.Param("key"))
}

func decodeKey(encoded string) (counter.Key, error) {
	key, err := url.PathUnescape(encoded)
	if err != nil { // net/http has refused such a path before
		return "", &counter.Error{Code: counter.CodeInvalidKey, Detail: "the key's percent-encoding is broken"}
	}
	return counter.ParseKey(key)
}

// notFound says what is wrong with a path that no route has.
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

// methodNotAllowed says which methods the path takes; Echo has put them in the header.
func methodNotAllowed(answer http.Header) error {
	return &counter.Error{Code: counter.CodeMethodNotAllowed, Detail: "this path takes " + answer.Get(echo.HeaderAllow)}
}
