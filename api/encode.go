package api

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxPooledBytes bounds the pooled buffers, so that the pool does not keep the memory of large batches.
const maxPooledBytes = 64 << 10

// buffer is a byte slice that is reused.
type buffer struct{ bytes []byte }

var buffers = sync.Pool{New: func() any { return &buffer{bytes: make([]byte, 0, 512)} }}

func getBuffer() *buffer { return buffers.Get().(*buffer) } //nolint:forcetypeassert // nothing else is put in

func putBuffer(b *buffer) {
	if cap(b.bytes) <= maxPooledBytes {
		b.bytes = b.bytes[:0]
		buffers.Put(b)
	}
}

// Values of answer headers. All answers share these slices, because net/http copies them before it sends them.
var (
	jsonType    = []string{echo.MIMEApplicationJSON}
	problemType = []string{"application/problem+json"}
	noStore     = []string{"no-store"}
)

// shortBodyBytes is a length up to which net/http itself sets Content-Length, which costs less. Without a Content-Length it
// would send a body over 2 KiB in chunks.
const shortBodyBytes = 1 << 10

// write sends a whole answer. It ignores errors, because they mean that the client has disconnected.
func write(c echo.Context, status int, contentType []string, body []byte) {
	w := c.Response()
	h := w.Header()
	h[echo.HeaderContentType] = contentType
	h[echo.HeaderCacheControl] = noStore
	if len(body) > shortBodyBytes {
		h.Set(echo.HeaderContentLength, strconv.Itoa(len(body)))
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// noContent answers 204.
func noContent(c echo.Context) {
	c.Response().Header()[echo.HeaderCacheControl] = noStore
	c.Response().WriteHeader(http.StatusNoContent)
}

// appendCounter appends a counter as JSON. It is written by hand because encoding is most of a request's cost in this package:
// this cannot fail and does not allocate.
func appendCounter(b []byte, c counter.Counter) []byte {
	b = append(b, `{"key":`...)
	b = appendString(b, string(c.Key))
	if c.Known {
		b = append(b, `,"value":`...)
		b = strconv.AppendInt(b, c.Value, 10)
		b = append(b, `,"version":`...)
		b = strconv.AppendInt(b, c.Version, 10)
	} else {
		b = append(b, `,"value":null,"version":null`...)
	}
	if c.SyncedVersion > 0 {
		b = append(b, `,"synced_version":`...)
		b = strconv.AppendInt(b, c.SyncedVersion, 10)
	}
	return appendSynced(b, c.Synced)
}

// appendDeleted appends the result of a delete. A counter that never existed has no version.
func appendDeleted(b []byte, c counter.Counter) []byte {
	b = append(b, `{"key":`...)
	b = appendString(b, string(c.Key))
	b = append(b, `,"deleted":true`...)
	if c.Known && c.Version > 0 {
		b = append(b, `,"version":`...)
		b = strconv.AppendInt(b, c.Version, 10)
	}
	return appendSynced(b, c.Synced)
}

func appendSynced(b []byte, synced bool) []byte {
	b = append(b, `,"synced":`...)
	b = strconv.AppendBool(b, synced)
	return append(b, '}')
}

// appendReplayed adds "replayed" to the object at the end of b if the object repeats the answer to an earlier operation.
func appendReplayed(b []byte, replayed bool) []byte {
	if !replayed {
		return b
	}
	return append(b[:len(b)-1], `,"replayed":true}`...)
}

// appendFailed appends the result of an operation that failed. The key is null if it was not valid.
func appendFailed(b []byte, key counter.Key, e *counter.Error) []byte {
	b = append(b, `{"key":`...)
	if key == "" {
		b = append(b, `null`...)
	} else {
		b = appendString(b, string(key))
	}
	b = append(b, `,"error":`...)
	b = appendProblem(b, e)
	return append(b, '}')
}

// appendProblem appends e as an RFC 9457 problem, without its Err.
func appendProblem(b []byte, e *counter.Error) []byte {
	p := problems[e.Code]
	b = append(b, `{"type":"`+problemPath...)
	b = append(b, e.Code...)
	b = append(b, `","title":"`...)
	b = append(b, p.title...)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(p.status), 10)
	if e.Detail != "" {
		b = append(b, `,"detail":`...)
		b = appendString(b, e.Detail)
	}
	b = append(b, `,"code":"`...)
	b = append(b, e.Code...)
	b = append(b, '"')
	b = appendCurrent(b, e)
	return append(b, '}')
}

// appendCurrent appends the fields of the counter's present state. One that does not exist has no version, but counts from the value 0.
func appendCurrent(b []byte, e *counter.Error) []byte {
	if e.Current == nil {
		return b
	}
	if e.Current.Exists || e.Code == counter.CodeOutOfBounds {
		b = strconv.AppendInt(append(b, `,"value":`...), e.Current.Value, 10)
	}
	if e.Current.Exists {
		b = strconv.AppendInt(append(b, `,"version":`...), e.Current.Version, 10)
	}
	return b
}

// appendString appends s as a JSON string, with U+FFFD for invalid UTF-8.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // an error only reports the replacement
	return b
}
