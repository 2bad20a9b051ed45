package ops_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/ops"
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
	listener, err := ops.Listen("127.0.0.1:0", "AFTERWRITE_API_ADDR")
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	b := &serveBundle{
		url:    "http://" + listener.Addr().String(),
		stop:   cancel,
		result: make(chan error, 1),
		client: &http.Client{Transport: &http.Transport{}},
	}
	go func() { b.result <- ops.Serve(ctx, listener, handler, slog.New(slog.DiscardHandler)) }()
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

func TestListenNamesTheVariableToChangeWhenThePortIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := ops.Listen("127.0.0.1:0", "AFTERWRITE_API_ADDR")
	require.NoError(t, err)
	defer taken.Close()

	_, err = ops.Listen(taken.Addr().String(), "AFTERWRITE_API_ADDR")

	require.EqualError(t, err, "cannot listen on "+taken.Addr().String()+
		": the port is taken: stop what uses it, or set AFTERWRITE_API_ADDR to another address")
}

func TestListenNamesTheVariableToChangeWhenTheAddressIsOfAnotherMachine(t *testing.T) {
	t.Parallel()
	_, err := ops.Listen("192.0.2.1:8080", "AFTERWRITE_API_ADDR") // TEST-NET-1 (RFC 5737)
	require.ErrorContains(t, err, "set AFTERWRITE_API_ADDR to an address of this machine")
}

func TestServeFinishesRequestsThatAreUnderWay(t *testing.T) {
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

// waitUntilRefused returns when nobody listens on addr any more.
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

func TestServeRefusesHugeHeaders(t *testing.T) {
	t.Parallel()
	b := setupServer(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))

	response, err := b.get(t.Context(), http.Header{"X-Huge": {strings.Repeat("a", 64<<10)}})
	require.NoError(t, err)
	defer response.Body.Close()

	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, response.StatusCode)
	b.stop()
	require.NoError(t, <-b.result)
}

func TestServeSaysWhenItCannotGoOn(t *testing.T) {
	t.Parallel()
	listener, err := ops.Listen("127.0.0.1:0", "AFTERWRITE_API_ADDR")
	require.NoError(t, err)
	require.NoError(t, listener.Close())

	err = ops.Serve(t.Context(), listener, http.NotFoundHandler(), slog.New(slog.DiscardHandler))

	require.ErrorContains(t, err, "serve HTTP on "+listener.Addr().String())
}
