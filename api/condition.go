package api

import (
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Headers of conditional requests (RFC 9110). The entity tag of a counter is its version in quotes.
const (
	headerIfMatch     = "If-Match"
	headerIfNoneMatch = "If-None-Match"
	headerETag        = "Etag" // in the canonical form of net/http
)

// codeInvalidPrecondition is the code for an If-Match that cannot be understood.
const codeInvalidPrecondition counter.Code = "invalid_precondition"

// noVersion is a version that no counter reaches.
const noVersion = math.MaxInt64

// entityTag returns the entity tag of a version.
func entityTag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

func invalidPrecondition(detail string) error {
	return &counter.Error{Code: codeInvalidPrecondition, Detail: detail}
}

// withoutPreconditions returns an error if the request has a precondition. To ignore one would apply what the client wants only on a
// condition.
func withoutPreconditions(h http.Header) error {
	if len(h[headerIfMatch])+len(h[headerIfNoneMatch]) > 0 {
		return invalidPrecondition("a batch or a stream has many counters, and takes neither If-Match nor If-None-Match: remove the header")
	}
	return nil
}

// ifMatch adds the header If-Match to the condition of a write, which may be nil. A tag that no counter has, such as a weak one,
// is a condition that no counter meets.
func ifMatch(h http.Header, c *counter.Condition) (*counter.Condition, error) {
	if len(h[headerIfNoneMatch]) > 0 { // perhaps to create a counter only: it must not overwrite one
		return nil, invalidPrecondition("If-None-Match is only for GET: a write takes If-Match")
	}
	given := h[headerIfMatch]
	if len(given) == 0 {
		return c, nil
	}
	tag := strings.TrimSpace(given[0])
	opaque, weak := strings.CutPrefix(tag, "W/")
	isTag := len(opaque) >= 2 && opaque[0] == '"' && strings.IndexByte(opaque[1:], '"') == len(opaque)-2
	if len(given) > 1 || (tag != "*" && !isTag) {
		return nil, invalidPrecondition(`If-Match must be one version in quotes, such as "7", or *`)
	}
	if c == nil {
		unconditional := counter.Unconditional()
		c = &unconditional
	}
	c.Exists = true
	if tag == "*" {
		return c, nil
	}
	version, err := strconv.ParseInt(opaque[1:len(opaque)-1], 10, 64)
	if err != nil || version < 1 || weak || entityTag(version) != opaque {
		version = noVersion
	}
	c.Version = version
	return c, nil
}

// noneMatch reports whether the request has an If-None-Match that lists tag, or *. Weak tags match too.
func noneMatch(h http.Header, tag string) bool {
	for _, line := range h[headerIfNoneMatch] {
		for line != "" {
			var listed string
			listed, line = cut(line, ',')
			listed = strings.TrimSpace(listed)
			if listed == "*" || strings.TrimPrefix(listed, "W/") == tag {
				return true
			}
		}
	}
	return false
}

// answerRead answers a read with the counter and its entity tag, or with 304 if the client has this version.
func answerRead(c echo.Context, value counter.Counter) {
	if !notModified(c, value.Version) {
		answerCounter(c, value, false)
	}
}

// notModified sets the entity tag of a version, and answers 304 if the client has this version.
func notModified(c echo.Context, version int64) bool {
	tag := entityTag(version)
	h := c.Response().Header()
	h[headerETag] = []string{tag}
	if !noneMatch(c.Request().Header, tag) {
		return false
	}
	h[echo.HeaderCacheControl] = noStore
	c.Response().WriteHeader(http.StatusNotModified)
	return true
}
