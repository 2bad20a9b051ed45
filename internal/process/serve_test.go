package process

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// serveBundle is a server on a free port.
type serveBundle struct {
	url    string
	stop   context.CancelFunc
	result chan error
	client *http.Client
}

func setupServer(t *testing.T, handler http.Handler) *serveBundle {
	t.Helper()
	return setupServerWith(t, DefaultLimits(), handler)
}

func setupServerWith(t *testing.T, limits Limits, handler http.Handler) *serveBundle {
	t.Helper()
	listener, err := Listen("127.0.0.1:0", "AFTERWRITE_API_ADDR")
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	b := &serveBundle{
		url:    "http://" + listener.Addr().String(),
		stop:   cancel,
		result: make(chan error, 1),
		client: &http.Client{Transport: &http.Transport{}},
	}
	go func() { b.result <- limits.Serve(ctx, listener, handler, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(cancel)
	t.Cleanup(b.client.CloseIdleConnections)
	return b
}

func (b *serveBundle) get(ctx context.Context, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header = header
	return b.client.Do(request)
}

func TestListenNamesTheVariableIfThePortIsInUse(t *testing.T) {
	t.Parallel()
	taken, err := Listen("127.0.0.1:0", "AFTERWRITE_API_ADDR")
	require.NoError(t, err)
	defer taken.Close()

	_, err = Listen(taken.Addr().String(), "AFTERWRITE_API_ADDR")

	require.EqualError(t, err, "cannot listen on "+taken.Addr().String()+
		": the port is in use: stop the program that uses it, or set AFTERWRITE_API_ADDR to another address")
}

func TestListenNamesTheVariableIfTheAddressIsNotLocal(t *testing.T) {
	t.Parallel()
	_, err := Listen("192.0.2.1:8080", "AFTERWRITE_API_ADDR") // TEST-NET-1 (RFC 5737)
	require.ErrorContains(t, err, "set AFTERWRITE_API_ADDR to an address of this machine")
}

func TestServeFinishesRequestsInProgress(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	b := setupServer(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		_, _ = io.WriteString(w, "finished")
	}))

	answer := make(chan string, 1)
	go func() {
		response, err := b.get(t.Context(), nil)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		answer <- string(body)
	}()
	<-entered
	b.stop()
	waitUntilRefused(t, strings.TrimPrefix(b.url, "http://"))
	close(release)

	require.Equal(t, "finished", <-answer)
	require.NoError(t, <-b.result)
}

// waitUntilRefused returns when addr refuses connections.
func waitUntilRefused(t *testing.T, addr string) {
	t.Helper()
	var dialer net.Dialer
	for t.Context().Err() == nil {
		connection, err := dialer.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return
		}
		connection.Close()
	}
}

func TestServeRejectsHugeHeaders(t *testing.T) {
	t.Parallel()
	b := setupServer(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	response, err := b.get(t.Context(), http.Header{"X-Huge": {strings.Repeat("a", 64<<10)}})
	require.NoError(t, err)
	defer response.Body.Close()

	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, response.StatusCode)
	b.stop()
	require.NoError(t, <-b.result)
}

func TestServeReportsAFailedListener(t *testing.T) {
	t.Parallel()
	listener, err := Listen("127.0.0.1:0", "AFTERWRITE_API_ADDR")
	require.NoError(t, err)
	require.NoError(t, listener.Close())

	err = DefaultLimits().Serve(t.Context(), listener, http.NotFoundHandler(), slog.New(slog.DiscardHandler))

	require.ErrorContains(t, err, "serve HTTP on "+listener.Addr().String())
}

func TestServeAbortsRequestsAfterTheGracePeriod(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	limits := DefaultLimits()
	limits.Grace = time.Millisecond
	b := setupServerWith(t, limits, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(entered)
		<-release
	}))
	go func() { _, _ = b.get(t.Context(), nil) }() //nolint:bodyclose // there is no answer
	<-entered

	b.stop()

	require.ErrorIs(t, <-b.result, context.DeadlineExceeded)
}

func TestServeAbortsSlowHeaders(t *testing.T) {
	t.Parallel()
	limits := DefaultLimits()
	limits.Header = 100 * time.Millisecond
	b := setupServerWith(t, limits, http.NotFoundHandler())
	connection, err := net.Dial("tcp", strings.TrimPrefix(b.url, "http://"))
	require.NoError(t, err)
	defer connection.Close()
	_, err = io.WriteString(connection, "POST / HTTP/1.1\r\nHost: a\r\nX-Slow:")
	require.NoError(t, err)

	_, err = connection.Read(make([]byte, 1))

	require.ErrorIs(t, err, io.EOF)
}

func TestServeReturnsAtOnceIfTheContextIsDone(t *testing.T) {
	t.Parallel()
	listener, err := Listen("127.0.0.1:0", "AFTERWRITE_API_ADDR")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	require.NoError(t, DefaultLimits().Serve(ctx, listener, http.NotFoundHandler(), slog.New(slog.DiscardHandler)))
}

func TestReadyzFailsDuringTheShutdownDelay(t *testing.T) {
	t.Parallel()
	var delay shutdownDelay
	ready := Health{Registry: NewRegistry(), Logger: slog.New(slog.DiscardHandler), Stopping: delay.begun.Load}.Handler(nil)
	ask := func(path string) (status int, body string) {
		answer := httptest.NewRecorder()
		ready.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return answer.Code, answer.Body.String()
	}
	ctx, cancel := context.WithCancel(t.Context())
	later, stop := delay.after(ctx, time.Hour)
	defer stop()
	status, _ := ask("/readyz")
	require.Equal(t, http.StatusOK, status)

	cancel()

	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		status, body := ask("/readyz")
		return status == http.StatusServiceUnavailable, body
	})
	_, body := ask("/readyz")
	require.Contains(t, body, `"stopping"`)
	status, _ = ask("/healthz")
	require.Equal(t, http.StatusOK, status, "it still answers")
	require.NoError(t, later.Err())
}

func TestZeroShutdownDelayStopsAtOnce(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	later, stop := new(shutdownDelay).after(ctx, 0)
	defer stop()
	cancel()
	<-later.Done()
}

func TestProfilesAreServedOnLoopbackUntilShutdown(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	require.NoError(t, serveProfiles(ctx, slog.New(slog.NewTextHandler(&log, nil))))
	url := regexp.MustCompile(`url=(http://127\.0\.0\.1:\d+/debug/pprof/)`).FindStringSubmatch(log.String())
	require.NotNil(t, url, log.String())

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, []byte, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url[1]+path, http.NoBody)
		require.NoError(t, err)
		response, err := client.Do(request)
		if err != nil {
			return 0, nil, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, body, err
	}

	status, body, err := get("goroutine?debug=1")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, string(body), "goroutine profile")

	stop()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		_, _, err := get("goroutine?debug=1")
		return err != nil, "the profiles are still served"
	})
}

func TestLinesOfNetHTTPAreLimited(t *testing.T) {
	t.Parallel()
	var out localtest.Buffer
	lines := slog.NewLogLogger(limitedHandler(slog.NewTextHandler(&out, nil)), slog.LevelWarn)
	for range 1000 {
		lines.Print("http: TLS handshake error")
	}
	logged := strings.Count(out.String(), "TLS handshake error")
	require.GreaterOrEqual(t, logged, serverLinesBurst)
	require.Less(t, logged, 2*serverLinesBurst)
}
