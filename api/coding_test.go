package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

const isGzip, isZstd = "Content-Encoding: gzip", "Content-Encoding: zstd"

func gzipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func zstdCompressed(t testing.TB, text string, options ...zstd.EOption) string {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, options...)
	require.NoError(t, err)
	_, err = io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func TestBatchMayBeCompressed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	body := operations(`{"op":"increment","key":"a","by":2}`, `{"op":"increment","key":"a"}`)
	two := gzipped(t, body[:20]) + gzipped(t, body[20:]) // RFC 1952 allows several members
	for _, c := range []struct{ body, coding string }{
		{gzipped(t, body), isGzip},
		{gzipped(t, body), "Content-Encoding: X-GZIP"},
		{gzipped(t, body), "Content-Encoding: identity, gzip"},
		{two, isGzip},
		{zstdCompressed(t, body), isZstd},
		{zstdCompressed(t, body[:20]) + zstdCompressed(t, body[20:]), isZstd},
		{body, "Content-Encoding: identity"},
	} {
		require.Equal(t, http.StatusOK, b.send(t, http.MethodPost, batch, c.body, c.coding, "Content-Type: application/json").StatusCode)
		a := b.send(t, http.MethodPost, batch, chunked(c.body), c.coding, "Content-Type: application/json", isChunked)
		require.Equal(t, http.StatusOK, a.StatusCode, "%s: %s", c.coding, a.text)
	}
	require.Equal(t, unsynced("a", 3*14, 2*14), b.get(t, "a"))
}

func TestFlushMayBeCompressed(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{
		Flusher: flusher(func(_ context.Context, keys []counter.Key, _ time.Duration) (operate.Left, error) {
			require.Equal(t, []counter.Key{"a"}, keys)
			return operate.Left{}, nil
		}),
	})
	a := b.send(t, http.MethodPost, "/v1/flush", gzipped(t, `{"keys":["a"]}`), isGzip)
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
}

// A decoder may need 9 MiB, so zstd bodies need large slots.
func TestZstdBatchNeedsLargeSlot(t *testing.T) {
	t.Parallel()
	b, held := serveSlots(t, always(counter.Result{}), 10, 1, 0)
	compressed := zstdCompressed(t, tiny)
	first := b.startRequest(t, batch, compressed, isZstd, "Content-Type: application/json")
	require.Equal(t, api.Held{Large: 1}, held())

	require.NoError(t, first.send(len(compressed)))
	require.Equal(t, http.StatusOK, first.answer(t).StatusCode)
	require.Zero(t, held())
}

// badCodings returns compressed bodies that are rejected.
func badCodings(t testing.TB) []badRequest {
	t.Helper()
	good := operations(`{"op":"set","key":"warm","value":5}`)
	gz, zs := gzipped(t, good), zstdCompressed(t, good)
	long := good + strings.Repeat(" ", api.MaxBatchBodyBytes)
	window := zstdCompressed(t, long, zstd.WithWindowSize(16<<20))
	flipped := func(s string, at int) string { return s[:at] + string(s[at]^0x10) + s[at+1:] }
	rejected := func(name, body, coding, code, detail string, status int) badRequest {
		return badRequest{
			name: name, method: "POST", target: batch, body: body, headers: []string{"Content-Type: application/json", coding},
			status: status, code: code, detail: detail,
		}
	}
	invalid := func(name, body, coding, detail string) badRequest {
		return rejected(name, body, coding, "invalid_body", detail, 400)
	}
	unsupported := func(coding string) badRequest {
		return rejected(coding, good, "Content-Encoding: "+coding, "unsupported_media_type", "gzip or zstd", 415)
	}
	return []badRequest{
		invalid("gzip cut off", gz[:len(gz)-12], isGzip, "not valid gzip: it ends too early"),
		invalid("gzip without its checksum", gz[:len(gz)-8], isGzip, "ends too early"),
		invalid("gzip header only", gz[:5], isGzip, "ends too early"),
		invalid("gzip with a wrong checksum", flipped(gz, len(gz)-6), isGzip, "not valid gzip"),
		invalid("gzip with garbage after it", gz+"garbage", isGzip, "not valid gzip"),
		invalid("not gzip", good, isGzip, "not valid gzip"),
		invalid("gzip with a second object", gz+gzipped(t, good), isGzip, ""),
		invalid("zstd cut off", zs[:len(zs)-10], isZstd, "not valid zstd: it ends too early"),
		invalid("zstd header only", zs[:6], isZstd, "ends too early"),
		invalid("zstd with a wrong checksum", flipped(zs, len(zs)-2), isZstd, "not valid zstd"),
		invalid("zstd with garbage after it", zs+"garbage", isZstd, "not valid zstd"),
		invalid("not zstd", good, isZstd, "not valid zstd"),
		invalid("zstd as gzip", zs, isGzip, "not valid gzip"),
		invalid("zstd with a large window", window, isZstd, "larger than 8 MiB"),
		invalid("gzip of nothing", gzipped(t, ""), isGzip, "the body is empty"),
		invalid("compressed, but not JSON", gzipped(t, "hello"), isGzip, "not valid JSON"),
		rejected("long gzip", gzipped(t, long), isGzip, "body_too_large", "8388608", 413),
		rejected("long zstd", zstdCompressed(t, long), isZstd, "body_too_large", "8388608", 413),
		rejected("8 MiB of empty zstd frames", chunked(strings.Repeat("\x50\x2a\x4d\x18\xf8\xff\x00\x00"+strings.Repeat("x", 0xfff8), 129)),
			isZstd+"\r\n"+isChunked, "body_too_large", "8388608", 413),
		unsupported("br"), unsupported("gzip, zstd"), unsupported("gzip, gzip"), unsupported(""), unsupported("identity;q=1"),
		unsupported("gzip\r\nContent-Encoding: gzip"),
	}
}

// The answer names the codings that the path accepts (RFC 9110, 12.5.3).
func TestUnsupportedCodingIsAnsweredWithTheCodings(t *testing.T) {
	t.Parallel()
	b := serve(t, always(counter.Result{}), api.Options{})

	a := b.send(t, http.MethodPost, batch, operations(good), "Content-Encoding: br")
	require.Equal(t, http.StatusUnsupportedMediaType, a.StatusCode)
	require.Equal(t, "gzip, zstd", a.Header.Get("Accept-Encoding"))

	a = b.send(t, http.MethodPost, increment, "{}", isGzip)
	require.Equal(t, http.StatusUnsupportedMediaType, a.StatusCode)
	require.Equal(t, "identity", a.Header.Get("Accept-Encoding"))

	a = b.send(t, http.MethodPost, batch, operations(good), "Content-Type: text/plain")
	require.Equal(t, http.StatusUnsupportedMediaType, a.StatusCode)
	require.Empty(t, a.Header.Get("Accept-Encoding"), "the coding is not the problem")
}
