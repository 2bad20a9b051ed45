package api

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// The content codings of request bodies. codingNone is the body as it is.
const (
	codingNone = ""
	codingGzip = "gzip"
	codingZstd = "zstd"
)

// maxZstdWindowBytes is the largest window that RFC 9659 allows in HTTP. A decoder keeps up to 1 MiB more.
const maxZstdWindowBytes = 8 << 20

// acceptedCodings is the Accept-Encoding of an answer 415.
const acceptedCodings = codingGzip + ", " + codingZstd

// contentCoding returns the coding of a body. It does not matter how often identity is named. The error names the codings.
func contentCoding(h http.Header) (coding string, err error) {
	for _, line := range h["Content-Encoding"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			switch {
			case name == "identity":
			case coding != codingNone:
				return "", unsupported("the body has more than one Content-Encoding: send it with gzip or zstd, or without any")
			case name == codingGzip || name == "x-gzip": // the same, in RFC 9110
				coding = codingGzip
			case name == codingZstd:
				coding = codingZstd
			default:
				return "", unsupported("Content-Encoding must be gzip or zstd, or left out, not %s", excerpt(name))
			}
		}
	}
	return coding, nil
}

// expander decompresses a body as it arrives. It reads the first bytes only in the first Read, because that may block.
//
// A gzip decoder holds 40 KB, a zstd decoder up to 9 MiB: its window. A window is allocated as soon as a header asks for it.
type expander struct {
	coding   string
	wire     wire
	expanded io.Reader // nil before the first Read
	gzip     *gzip.Reader
	zstd     *zstd.Decoder
}

// wire reads the compressed body. It keeps the read error, which the zstd decoder takes for the end of the body between two frames.
type wire struct {
	reader io.Reader
	err    error // other than io.EOF
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err //nolint:wrapcheck // the decoders compare it with io.EOF
}

// newExpander returns a reader of what the body holds. The caller calls close.
func newExpander(coding string, compressed io.Reader) *expander {
	return &expander{coding: coding, wire: wire{reader: compressed}}
}

// Read returns io.EOF at the end, the body's own error if it has one, and a *codingError if the data are not valid.
func (e *expander) Read(p []byte) (int, error) {
	if e.expanded == nil {
		if err := e.begin(); err != nil {
			return 0, e.cause(err)
		}
	}
	n, err := e.expanded.Read(p)
	if err != nil {
		err = e.cause(err)
	}
	return n, err
}

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

func (e *expander) begin() (err error) {
	if e.coding == codingGzip {
		e.gzip = gzipReaders.Get().(*gzip.Reader) //nolint:forcetypeassert // nothing else is put in
		if err = e.gzip.Reset(&e.wire); err == nil {
			e.expanded = e.gzip
		}
		return err //nolint:wrapcheck // see cause
	}
	// One at a time decodes in the calling goroutine. Decoders are not pooled: a pool would keep their windows. They read a few
	// bytes at a time from each frame's header.
	e.zstd, err = zstd.NewReader(bufio.NewReader(&e.wire), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindowBytes))
	if err == nil {
		e.expanded = e.zstd
	}
	return err //nolint:wrapcheck // see cause
}

// cause returns the reason for a decoder's error.
func (e *expander) cause(err error) error {
	switch {
	case e.wire.err != nil:
		return e.wire.err
	case errors.Is(err, io.EOF):
		return io.EOF
	default:
		return &codingError{coding: e.coding, err: err}
	}
}

func (e *expander) close() {
	if e.gzip != nil {
		gzipReaders.Put(e.gzip)
	}
	if e.zstd != nil {
		e.zstd.Close()
	}
	*e = expander{} // the pooled decoder still points to wire
}

// codingError means that a body is not valid in its coding.
type codingError struct {
	coding string
	err    error
}

func (e *codingError) Error() string { return e.coding + ": " + e.err.Error() }

func (e *codingError) Unwrap() error { return e.err }

// detail says what is wrong, for the client.
func (e *codingError) detail() string {
	switch {
	case errors.Is(e.err, io.ErrUnexpectedEOF):
		return "the body is not valid " + e.coding + ": it ends too early"
	case errors.Is(e.err, zstd.ErrWindowSizeExceeded), errors.Is(e.err, zstd.ErrDecoderSizeExceeded):
		return "the zstd window is larger than 8 MiB: compress the body with --long=23 or a lower level"
	default:
		return "the body is not valid " + e.coding + ": " + reason(e.err)
	}
}
