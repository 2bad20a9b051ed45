package api

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// body decodes a request's body as it arrives, so that a batch of 8 MiB is never in memory as text. Unlike encoding/json,
// jsontext rejects duplicate names and invalid UTF-8.
type body struct {
	json   jsontext.Decoder
	source source
	isLine bool // it is one line of a stream: errors say so
}

// name is what errors call the body.
func (b *body) name() string {
	if b.isLine {
		return "the line"
	}
	return "the body"
}

var bodies = sync.Pool{New: func() any { return new(body) }}

// source reads from the connection. It keeps the read error, which the JSON decoder would hide.
type source struct {
	reader   io.Reader
	expander *expander // nil: the body is not compressed
	arriving *arrival  // nil: the body needs no admission
	read     int64     // bytes, decompressed
	err      error     // other than io.EOF
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.reader.Read(p)
	s.read += int64(n)
	if s.arriving != nil {
		if rejected := s.arriving.receive(n); rejected != nil {
			err = rejected
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err //nolint:wrapcheck // jsontext compares it with io.EOF
}

// admitBody calls read with the body of a batch, a read or a flush, or with nil if the request has none. It returns an error without
// calling read if admission has no slot. If the body is expelled, it returns an error after the call.
func (s *server) admitBody(c echo.Context, read func(b *body) error) (err error) {
	arriving, err := s.admission.admit(c)
	if err != nil {
		return err
	}
	defer func() {
		if expelled := arriving.end(); expelled != nil {
			c.Response().Header().Set(echo.HeaderConnection, "close")
			err = expelled
		}
	}()
	b, err := openBody(c, MaxBatchBodyBytes, arriving)
	if err != nil {
		return err
	}
	if b != nil {
		defer b.close()
	}
	return read(b)
}

// openBody checks the headers of a body. It returns nil if the request has no body. Otherwise the caller must close the body.
// arriving, unless nil, counts the bytes that arrive. A body that needs no admission must not be compressed, because a decoder
// needs more memory than a small body.
func openBody(c echo.Context, limitBytes int64, arriving *arrival) (*body, error) {
	r := c.Request()
	if r.ContentLength > limitBytes {
		return nil, tooLarge(limitBytes)
	}
	coding, codingErr := contentCoding(r.Header)
	if arriving == nil && coding != codingNone {
		coding, codingErr = codingNone, unsupported("Content-Encoding is %s: only batches, reads and flushes may be compressed", coding)
	}
	if coding == codingZstd {
		if err := arriving.becomeLarge(); err != nil {
			return nil, err
		}
	}
	b := bodies.Get().(*body) //nolint:forcetypeassert // nothing else is put in
	b.source = source{reader: r.Body, arriving: arriving}
	if r.ContentLength < 0 { // chunked: past the limit, reads fail and the connection is closed
		b.source.reader = http.MaxBytesReader(c.Response().Writer, r.Body, limitBytes)
	}
	if coding != codingNone {
		b.expand(c, coding, limitBytes)
	}
	b.json.Reset(&b.source)

	if b.isEmpty() {
		b.close()
		return nil, nil //nolint:nilnil // a request without a body is valid
	}
	if codingErr != nil {
		accept := acceptedCodings
		if arriving == nil {
			accept = "identity"
		}
		c.Response().Header().Set(echo.HeaderAcceptEncoding, accept)
		b.close()
		return nil, codingErr
	}
	if err := checkMediaType(r.Header, echo.MIMEApplicationJSON); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// expand decompresses the body, up to limitBytes. Admission counts the decompressed bytes, because these need memory.
func (b *body) expand(c echo.Context, coding string, limitBytes int64) {
	e := newExpander(coding, b.source.reader)
	b.source.expander = e
	b.source.reader = http.MaxBytesReader(c.Response().Writer, io.NopCloser(e), limitBytes)
}

// isEmpty reads the first bytes, because a chunked body does not announce its length.
func (b *body) isEmpty() bool {
	b.json.PeekKind() // if it fails, the next read returns the error
	return b.source.read == 0 && b.source.err == nil
}

// close returns the body to the pool, unless its buffer may have grown.
func (b *body) close() {
	large := b.source.read > maxPooledBytes
	if b.source.expander != nil {
		b.source.expander.close()
	}
	b.source = source{}
	if !large {
		bodies.Put(b)
	}
}

// checkMediaType accepts the media types in UTF-8. The first is the one that errors name.
func checkMediaType(h http.Header, accepted ...string) error {
	given := h["Content-Type"]
	switch {
	case len(given) == 0:
		return unsupported("Content-Type is missing: it must be %s", accepted[0])
	case len(given) > 1:
		return unsupported("the request has %d Content-Type headers: send one", len(given))
	case slices.Contains(accepted, given[0]):
		return nil // ParseMediaType would allocate a map
	}
	mediaType, parameters, err := mime.ParseMediaType(given[0])
	if err != nil || !slices.Contains(accepted, mediaType) {
		return unsupported("Content-Type must be %s, not %s", accepted[0], excerpt(given[0]))
	}
	if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return unsupported("the charset must be utf-8, not %s", excerpt(charset))
	}
	return nil
}

func unsupported(format string, args ...any) error {
	return &counter.Error{Code: counter.CodeUnsupportedMediaType, Detail: fmt.Sprintf(format, args...)}
}

func tooLarge(limitBytes int64) error {
	return &counter.Error{Code: counter.CodeBodyTooLarge, Detail: fmt.Sprintf("the body is longer than %d bytes", limitBytes)}
}

// maxExcerptBytes bounds how much of a client's text an error repeats.
const maxExcerptBytes = 64

// excerpt returns s in quotes, truncated to maxExcerptBytes.
func excerpt(s string) string {
	if len(s) > maxExcerptBytes {
		return fmt.Sprintf("%q...", strings.ToValidUTF8(s[:maxExcerptBytes], ""))
	}
	return fmt.Sprintf("%q", s)
}
