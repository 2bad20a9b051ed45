package stream

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// repeated repeats a block, n times.
func repeated(block []byte, n int) io.Reader {
	readers := make([]io.Reader, n)
	for i := range readers {
		readers[i] = bytes.NewReader(block)
	}
	return io.MultiReader(readers...)
}

const gib = 1 << 10 // blocks of 1 MiB

// bomb returns 1 GiB of a letter in about 1 MB, or less.
func bomb(t *testing.T, coding string) io.Reader {
	t.Helper()
	var block bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&block)
	if coding == "zstd" {
		var err error
		w, err = zstd.NewWriter(&block)
		require.NoError(t, err)
	}
	_, err := w.Write(bytes.Repeat([]byte("x"), 1<<20))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return repeated(block.Bytes(), gib)
}

// Each hostile request gets an answer, other clients are served, and memory is bounded.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	r := setup(t)
	deep := strings.Repeat("[", 8<<20-100)
	line := repeated(bytes.Repeat([]byte("x"), 1<<20), gib)
	for _, c := range []struct {
		name, path string
		body       io.Reader
		headers    []string
		status     int
		code       string // of the answer, or of its first line
	}{
		{"a line of 1 GiB", "/v1/stream", line, nil, 200, "body_too_large"},
		{"a gzip bomb in a stream", "/v1/stream", bomb(t, "gzip"), []string{"Content-Encoding: gzip"}, 200, "body_too_large"},
		{"a zstd bomb in a stream", "/v1/stream", bomb(t, "zstd"), []string{"Content-Encoding: zstd"}, 200, "body_too_large"},
		{"a gzip bomb in a batch", "/v1/batch", bomb(t, "gzip"), []string{"Content-Encoding: gzip"}, 400, "invalid_body"},
		{"a zstd bomb in a batch", "/v1/batch", bomb(t, "zstd"), []string{"Content-Encoding: zstd"}, 400, "invalid_body"},
		{
			"a gzip bomb in a string of a batch", "/v1/batch", stringBomb(t), []string{"Content-Encoding: gzip"}, 413, "body_too_large",
		},
		{"deep JSON in a stream", "/v1/stream", strings.NewReader(deep), nil, 200, "body_too_large"},
		{"deep JSON in a line", "/v1/stream", strings.NewReader(`{"op":` + deep[:60_000]), nil, 200, "invalid_body"},
		{"deep JSON in a batch", "/v1/batch", strings.NewReader(`{"operations":` + deep), nil, 400, "invalid_body"},
		{"invalid UTF-8 in a line", "/v1/stream", strings.NewReader("{\"op\":\"increment\",\"key\":\"\xff\"}"), nil, 200, "invalid_body"},
		{
			"invalid UTF-8 in a batch", "/v1/batch", strings.NewReader("{\"operations\":[{\"op\":\"increment\",\"key\":\"\xff\"}]}"), nil,
			400, "invalid_body",
		},
	} {
		memory := r.watchMemory(t)
		begun := time.Now()
		response, err := r.post(t, c.path, c.body, c.headers...)
		require.NoError(t, err, c.name)
		text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		require.NoError(t, err, c.name)
		require.NoError(t, response.Body.Close())
		t.Logf("%s: %d in %s", c.name, response.StatusCode, time.Since(begun).Round(time.Millisecond))
		require.Equal(t, c.status, response.StatusCode, "%s: %s", c.name, text)
		require.Contains(t, string(text), `"code":"`+c.code+`"`, c.name)
		require.Equal(t, c.status == 200, strings.HasSuffix(string(text), `"done":true}`+"\n"), c.name)
		memory.requireBounded(t, c.name, maxGrowth)
	}
}

// stringBomb returns a batch whose key has 1 GiB, compressed.
func stringBomb(t *testing.T) io.Reader {
	t.Helper()
	var begin bytes.Buffer
	w := gzip.NewWriter(&begin)
	_, err := io.WriteString(w, `{"operations":[{"op":"increment","key":"`)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return io.MultiReader(&begin, bomb(t, "gzip"))
}

func TestManyHeaders(t *testing.T) {
	t.Parallel()
	r := setup(t)
	memory := r.watchMemory(t)
	connection := r.dial(t)
	defer connection.Close()
	var sending sync.WaitGroup
	sending.Go(func() {
		w := io.MultiReader(strings.NewReader("POST /v1/stream HTTP/1.1\r\nHost: a\r\n"), repeated([]byte("X-Header: value\r\n"), 100_000))
		_, _ = io.Copy(connection, w) // fails once the server has answered
	})
	answer := make([]byte, len("HTTP/1.1 431"))
	_, err := io.ReadFull(connection, answer)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 431", string(answer))
	_ = connection.Close()
	sending.Wait()
	memory.requireBounded(t, "100,000 headers", maxGrowth)
}

func (r *rig) dial(t *testing.T) net.Conn {
	t.Helper()
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.api.URL, "http://"))
	require.NoError(t, err)
	require.NoError(t, connection.SetDeadline(time.Now().Add(patience)))
	return connection
}

// 64 streams send a byte at a time, and 500 connections never end their headers. Others are served meanwhile.
func TestSlowloris(t *testing.T) {
	t.Parallel()
	r := setup(t)
	memory := r.watchMemory(t)
	stop := make(chan struct{})
	var dripping sync.WaitGroup
	defer dripping.Wait()
	defer close(stop)
	for i := range 564 {
		connection := r.dial(t)
		t.Cleanup(func() { _ = connection.Close() })
		head := "POST /v1/stream HTTP/1.1\r\nHost: a\r\n"
		if i < 64 {
			head += "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
		}
		_, err := io.WriteString(connection, head)
		require.NoError(t, err)
		dripping.Go(func() { drip(connection, i < 64, stop) })
	}

	localtest.Eventually(t, time.Minute, func() (bool, string) {
		response, err := r.post(t, "/v1/stream", strings.NewReader(operation(0)))
		require.NoError(t, err)
		defer response.Body.Close()
		return response.StatusCode == http.StatusServiceUnavailable, "a slot is free: " + response.Status
	})
	var slowest time.Duration
	for i := range 200 {
		begun := time.Now()
		response, err := r.post(t, "/v1/batch", strings.NewReader(fmt.Sprintf(`{"operations":[{"op":"increment","key":"key-%d"}]}`, i)))
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode)
		slowest = max(slowest, time.Since(begun))
	}
	t.Logf("the slowest of 200 batches took %s", slowest)
	require.Less(t, slowest, 5*time.Second) // much more than needed, for a busy machine
	memory.requireBounded(t, "slow clients", maxGrowth)
}

// drip sends a byte every few milliseconds, until stop is closed or the server closes the connection.
func drip(connection net.Conn, chunked bool, stop <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		text := "x"
		if chunked {
			text = "1\r\nx\r\n"
		}
		select {
		case <-stop:
			return
		case <-tick.C:
			if _, err := io.WriteString(connection, text); err != nil {
				return
			}
		}
	}
}
