package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// body is a request's body that is being read as JSON. It is decoded as it arrives, so a batch of 8 MiB is never in memory as
// text. Unlike encoding/json, jsontext refuses duplicate names and invalid UTF-8.
type body struct {
	json   jsontext.Decoder
	source source
}

var bodies = sync.Pool{New: func() any { return new(body) }}

// source reads from the connection, and keeps the error that the JSON decoder would hide.
type source struct {
	reader   io.Reader
	arriving *arrival // nil: not a batch
	read     int64    // bytes
	err      error    // other than io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.reader.Read(p)
	s.read += int64(n)
	if s.arriving != nil {
		if full := s.arriving.receive(n); full != nil {
			err = full
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err //nolint:wrapcheck // jsontext compares it with io.EOF
}

// openBody checks the headers of a body. It returns nil for a request without one; else the
// caller closes it. arriving, unless nil, counts what arrives.
func openBody(c echo.Context, limitBytes int64, arriving *arrival) (*body, error) {
	r := c.Request()
	if r.ContentLength > limitBytes {
		return nil, tooLarge(limitBytes)
	}
	b := bodies.Get().(*body) //nolint:forcetypeassert // nothing else is put in
	b.source = source{reader: r.Body, arriving: arriving}
	if r.ContentLength < 0 { // chunked: cut off at the limit, and the connection closed
		b.source.reader = http.MaxBytesReader(c.Response().Writer, r.Body, limitBytes)
	}
	b.json.Reset(&b.source)

	if b.isEmpty() {
		b.close()
		return nil, nil //nolint:nilnil // no body, and that is no error
	}
	if err := checkMediaType(r.Header); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// isEmpty reads the first bytes, since a chunked body does not announce that it is empty.
func (b *body) isEmpty() bool {
	b.json.PeekKind() // its error comes again with the first read
	return b.source.read == 0 && b.source.err == nil
}

// close returns the body to the pool, unless its buffer may have grown.
func (b *body) close() {
	large := b.source.read > maxPooledBytes
	b.source = source{}
	if !large {
		bodies.Put(b)
	}
}

// checkMediaType accepts application/json in UTF-8, not compressed.
func checkMediaType(h http.Header) error {
	for _, coding := range h["Content-Encoding"] {
		if !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return unsupported("Content-Encoding is %s: send the body as it is", excerpt(coding))
		}
	}
	given := h["Content-Type"]
	switch {
	case len(given) == 0:
		return unsupported("Content-Type is missing: it takes application/json")
	case len(given) > 1:
		return unsupported("Content-Type is there %d times: it takes application/json, once", len(given))
	case given[0] == echo.MIMEApplicationJSON:
		return nil // without a map for its parameters
	}
	mediaType, parameters, err := mime.ParseMediaType(given[0])
	if err != nil || mediaType != echo.MIMEApplicationJSON {
		return unsupported("Content-Type is %s: it takes application/json", excerpt(given[0]))
	}
	if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return unsupported("the body's charset is %s: it takes utf-8", excerpt(charset))
	}
	return nil
}

func unsupported(format string, args ...any) error {
	return &counter.Error{Code: counter.CodeUnsupportedMediaType, Detail: fmt.Sprintf(format, args...)}
}

func tooLarge(limitBytes int64) error {
	return &counter.Error{
		Code: counter.CodeBodyTooLarge, Detail: fmt.Sprintf("the body is longer than the %d bytes that it may have", limitBytes),
	}
}

// maxExcerptBytes of what a client has sent go into a detail.
const maxExcerptBytes = 64

// excerpt returns s in quotes, cut off if it is long.
func excerpt(s string) string {
	if len(s) > maxExcerptBytes {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(s[:maxExcerptBytes], ""))
	}
	return fmt.Sprintf("%q", s)
}
