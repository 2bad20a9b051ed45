package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// openStreams returns the gauge of the open streams.
func openStreams(t *testing.T, registry *prometheus.Registry) int {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "afterwrite_streams" {
			return int(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	require.Fail(t, "there is no gauge")
	return 0
}

func TestStreamThatSendsNoLineIsEnded(t *testing.T) {
	t.Parallel()
	handler := api.NewWithStreamLimits(applied, api.Options{}, 200*time.Millisecond, patience)
	b := &bundle{addr: start(t, handler)}
	for name, drip := range map[string]string{"nothing": "", "a line without an end": `{"op":"increment"     `} {
		s := b.open(t)
		s.write(t, `{"op":"increment","key":"a"}`+"\n")
		begun := time.Now()
		go func() {
			for i := range drip {
				_, _ = io.WriteString(s.send, drip[i:i+1])
				time.Sleep(50 * time.Millisecond) // the speed of a slow client, not a wait for a condition
			}
		}()
		require.Equal(t, "a", s.next(t).Key)

		last := s.next(t)

		require.True(t, last.Done, name)
		require.Equal(t, "invalid_body", last.Error.Code, name)
		require.Contains(t, last.Error.Detail, "no complete line arrived within 200ms", name)
		require.EqualValues(t, 1, last.Lines)
		require.GreaterOrEqual(t, time.Since(begun), 200*time.Millisecond)
		_, _ = io.Copy(io.Discard, s.Body)
	}
}

// Empty lines keep a stream open, beyond every limit for a request.
func TestSlowStreamIsNotEnded(t *testing.T) {
	t.Parallel()
	limits := process.DefaultLimits()
	limits.Read, limits.Write = 100*time.Millisecond, 100*time.Millisecond
	b := &bundle{addr: startWithin(t, limits, api.NewWithStreamLimits(applied, api.Options{}, 5*time.Second, patience))}
	s := b.open(t)
	for begun := time.Now(); time.Since(begun) < time.Second; time.Sleep(20 * time.Millisecond) {
		s.write(t, "\n")
	}
	s.write(t, `{"op":"increment","key":"a"}`+"\n")
	require.Equal(t, "a", s.next(t).Key)
	require.NoError(t, s.send.Close())
	require.Nil(t, s.next(t).Error)
}

// A client that does not read is stopped by its connection, holds one group in memory, and loses its stream.
func TestStreamWhoseClientDoesNotReadIsEnded(t *testing.T) {
	t.Parallel()
	var done atomic.Int64
	count := counters(func(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
		done.Add(int64(len(ops)))
		return applied(ctx, ops, o)
	})
	registry := prometheus.NewRegistry()
	b := &bundle{addr: start(t, api.NewWithStreamLimits(count, api.Options{Metrics: registry}, patience, 300*time.Millisecond))}
	connection := b.dial(t)
	defer connection.Close()
	_, err := io.WriteString(connection, requestText(http.MethodPost, stream, "", ndjson, isChunked))
	require.NoError(t, err)
	line := `{"op":"increment","key":"` + longestKey + `"}` + "\n"
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 100*len(line), strings.Repeat(line, 100))

	for err == nil { // ends with the connection, which the server reads a little longer than it carries out operations
		_, err = io.WriteString(connection, chunk)
	}

	localtest.Eventually(t, patience, func() (bool, string) { return openStreams(t, registry) == 0, "the stream is open" })
	require.Less(t, done.Load(), int64(100_000), "the buffers of the connection hold some 10 MB")
}

// While Redis is slow the server reads one group ahead, and no more: the client has to wait.
func TestStreamReadsOneGroupAhead(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var largest atomic.Int64
	b := serve(t, counters(func(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
		<-release
		largest.Store(max(largest.Load(), int64(len(ops))))
		return applied(ctx, ops, o)
	}), api.Options{})
	connection := b.dial(t)
	defer connection.Close()
	_, err := io.WriteString(connection, requestText(http.MethodPost, stream, "", ndjson, isChunked, minimal))
	require.NoError(t, err)
	line := `{"op":"increment","key":"` + longestKey + `"}` + "\n"
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 100*len(line), strings.Repeat(line, 100))

	var sent, n int
	for err == nil {
		require.NoError(t, connection.SetWriteDeadline(time.Now().Add(500*time.Millisecond)))
		n, err = io.WriteString(connection, chunk)
		sent += n
		require.Less(t, sent, 100<<20, "the buffers of the connection hold some 10 MB")
	}
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	close(release)
	require.NoError(t, connection.SetWriteDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(connection, chunk[n:]+"0\r\n\r\n")
	require.NoError(t, err)

	a := readAnswer(t, connection, "POST /v1/stream HTTP/1.1\r\n")
	lines := strings.Split(strings.TrimSpace(a.text), "\n")
	last := parseLine(t, lines[len(lines)-1])
	require.Zero(t, last.Failed)
	require.Positive(t, last.Applied)
	require.Nil(t, last.Error)
	require.LessOrEqual(t, largest.Load(), int64(api.MaxGroupLines))
}

func TestTooManyStreamsAreRejected(t *testing.T) {
	t.Parallel()
	b := serve(t, applied, api.Options{})
	open := make([]*openStream, api.MaxStreams)
	for i := range open {
		open[i] = b.open(t)
	}
	require.Equal(t, api.MaxStreams, openStreams(t, b.registry))

	a := b.send(t, http.MethodPost, stream, good, ndjson)

	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Equal(t, "overloaded", a.problem(t).Code)
	require.Contains(t, a.problem(t).Detail, "too many streams")
	require.Equal(t, "1", a.Header.Get("Retry-After"))

	require.NoError(t, open[0].send.Close())
	require.True(t, open[0].next(t).Done)
	localtest.Eventually(t, patience, func() (bool, string) {
		a := b.send(t, http.MethodPost, stream, good, ndjson)
		return a.StatusCode == http.StatusOK, a.text
	})
	for _, s := range open[1:] { // a client that disconnects gives its slot back
		s.send.CloseWithError(errors.New("disconnected"))
	}
	localtest.Eventually(t, patience, func() (bool, string) {
		n := openStreams(t, b.registry)
		return n == 0, strconv.Itoa(n)
	})
}

// At shutdown a stream ends after the lines that were read, and says so.
func TestShutdownEndsStreams(t *testing.T) {
	t.Parallel()
	shutdown, stop := context.WithCancel(t.Context())
	entered, release := make(chan struct{}, 100), make(chan struct{})
	b := serve(t, counters(func(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
		entered <- struct{}{}
		<-release
		return applied(ctx, ops, o)
	}), api.Options{Shutdown: shutdown})
	idle, busy := b.open(t), b.open(t)
	busy.write(t, good+"\n")
	<-entered

	stop()

	last := idle.next(t)
	require.True(t, last.Done)
	require.Equal(t, "overloaded", last.Error.Code)
	require.Contains(t, last.Error.Detail, "stopping")
	close(release)
	require.Equal(t, "warm", busy.next(t).Key, "the group in progress is answered")
	last = busy.next(t)
	require.True(t, last.Done)
	require.Equal(t, "overloaded", last.Error.Code)
	require.EqualValues(t, 1, last.Lines)
	require.Equal(t, http.StatusServiceUnavailable, b.send(t, http.MethodPost, stream, good, ndjson).StatusCode, "no stream begins")
}

// A client that goes on sending when the stream has ended can still read why.
func TestClientThatKeepsSendingReadsTheEnd(t *testing.T) {
	t.Parallel()
	shutdown, stop := context.WithCancel(t.Context())
	b := serve(t, applied, api.Options{Shutdown: shutdown})
	s := b.open(t, minimal)
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for lines := strings.Repeat(good+"\n", 100); ; {
			if _, err := io.WriteString(s.send, lines); err != nil {
				return
			}
		}
	})
	require.EqualValues(t, 10_000, s.next(t).Lines)

	stop()

	for last := s.next(t); ; last = s.next(t) {
		if last.Done {
			require.Equal(t, "overloaded", last.Error.Code)
			require.Equal(t, last.Lines, last.Applied)
			break
		}
	}
	_ = s.Body.Close()
	_ = s.send.CloseWithError(io.ErrClosedPipe)
}

// Rejected operations are errors, not repeated, and slow the stream down.
func TestRejectionsSlowAStreamDown(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var begun []time.Time
	b := serve(t, counters(func(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
		mu.Lock()
		defer mu.Unlock()
		begun = append(begun, time.Now())
		return failing(counter.CodeBackpressure, 300*time.Millisecond)(ctx, ops, o)
	}), api.Options{})
	s := b.open(t)

	s.write(t, good+"\n")
	require.Equal(t, "backpressure", s.next(t).Error.Code)
	s.write(t, good+"\n")
	require.Equal(t, "backpressure", s.next(t).Error.Code)
	require.NoError(t, s.send.Close())

	require.Equal(t, streamLine{Lines: 2, Failed: 2, Done: true}, s.next(t))
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, begun, 2)
	require.GreaterOrEqual(t, begun[1].Sub(begun[0]), 300*time.Millisecond)
}

// While the group before is carried out, a line has no time limit. On HTTP/2 a limit that has passed would end the body for good.
func TestTimeOfALineDoesNotRunWhileTheServerIsSlow(t *testing.T) {
	t.Parallel()
	const limit = time.Second
	started, release := make(chan struct{}), make(chan struct{})
	start := sync.OnceFunc(func() { close(started) })
	slow := counters(func(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
		start()
		<-release
		return applied(ctx, ops, o)
	})
	server := httptest.NewUnstartedServer(api.NewWithStreamLimits(slow, api.Options{}, limit, patience))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	body, send := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+stream, body)
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("Prefer", "return=minimal")
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(send, strings.Repeat(good+"\n", 20_000))
		sent <- errors.Join(err, send.Close())
	}()
	response, err := server.Client().Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, 2, response.ProtoMajor)
	<-started
	<-time.After(2 * limit) // the time that must not count
	close(release)
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, <-sent)
	require.Contains(t, string(text), `{"lines":20000,"applied":20000,"failed":0,"done":true}`)
}
