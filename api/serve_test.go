package api_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// held is a Counters that answers only when the test lets it.
type held struct {
	entered, release chan struct{}
}

func (held) Ready(context.Context) (redis, postgres error) { return nil, nil }

func newHeld() held { return held{entered: make(chan struct{}, 100), release: make(chan struct{})} }

func (h held) Do(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
	h.entered <- struct{}{}
	<-h.release
	return make([]counter.Result, len(ops))
}

// impatient serves with short limits.
func impatient(t *testing.T, header, read time.Duration) *bundle {
	t.Helper()
	handler := api.New(always(counter.Result{}), api.Options{})
	return &bundle{addr: start(t, func(ctx context.Context, l net.Listener) error {
		return api.ServeImpatiently(ctx, handler, l, header, read, patience)
	})}
}

func TestServeAnswersWhatItHasBeforeItEnds(t *testing.T) {
	t.Parallel()
	service := newHeld()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- api.ServeListener(ctx, api.New(service, api.Options{}), listener) }()
	b := &bundle{addr: listener.Addr().String()}
	connection := b.dial(t)
	defer connection.Close()
	request := requestText(http.MethodDelete, "/v1/counters/a", "")
	_, err = io.WriteString(connection, request)
	require.NoError(t, err)
	<-service.entered

	stop()
	localtest.Eventually(t, patience, func() (bool, string) {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			return true, ""
		}
		_ = c.Close()
		return false, "it still takes connections"
	})
	require.Empty(t, ended, "a request is under way")
	close(service.release)

	require.Equal(t, http.StatusNoContent, readAnswer(t, connection, request).StatusCode)
	require.NoError(t, <-ended)
}

func TestServeCutsOffWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	service := newHeld()
	defer close(service.release)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- api.ServeImpatiently(ctx, api.New(service, api.Options{}), listener, patience, patience, time.Millisecond)
	}()
	connection := (&bundle{addr: listener.Addr().String()}).dial(t)
	defer connection.Close()
	_, err = io.WriteString(connection, requestText(http.MethodDelete, "/v1/counters/a", ""))
	require.NoError(t, err)
	<-service.entered

	stop()

	require.ErrorIs(t, <-ended, context.DeadlineExceeded)
}

func TestServeSaysWhyItCannotListen(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()

	err = api.Serve(t.Context(), http.NotFoundHandler(), taken.Addr().String())

	require.ErrorContains(t, err, taken.Addr().String())
}

func TestServeListensOnItsAddress(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	require.NoError(t, api.Serve(ctx, http.NotFoundHandler(), "127.0.0.1:0"), "done before it began")
}

func TestSlowBodyIsRefused(t *testing.T) {
	t.Parallel()
	b := impatient(t, patience, 100*time.Millisecond)
	for _, target := range []string{increment, batch} {
		connection := b.dial(t)
		defer connection.Close()
		request := requestText(http.MethodPost, target, `{"op`, "Content-Type: application/json", "Transfer-Encoding: none")
		request = strings.Replace(request, "Transfer-Encoding: none", "Content-Length: 100", 1) // and the rest never comes
		_, err := io.WriteString(connection, request)
		require.NoError(t, err)

		a := readAnswer(t, connection, request)

		require.Equal(t, http.StatusBadRequest, a.StatusCode)
		require.Equal(t, "invalid_body", a.problem(t).Code)
		require.Contains(t, a.problem(t).Detail, "in time")
		_, err = connection.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "the connection is of no more use")
	}
}

func TestBodyThatIsCutOffIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "warm", "41")
	connection := b.dial(t)
	defer connection.Close()
	request := "POST " + increment + " HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"by\":5}"
	_, err := io.WriteString(connection, request)
	require.NoError(t, err)
	require.NoError(t, connection.(*net.TCPConn).CloseWrite())

	a := readAnswer(t, connection, request)

	require.Equal(t, "invalid_body", a.problem(t).Code)
	require.Equal(t, is("warm", 41, 1), b.get(t, "warm"))
}

func TestSlowHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	b := impatient(t, 100*time.Millisecond, patience)
	connection := b.dial(t)
	defer connection.Close()
	_, err := io.WriteString(connection, "POST "+increment+" HTTP/1.1\r\nHost: a\r\nX-Slow:")
	require.NoError(t, err)

	_, err = connection.Read(make([]byte, 1))

	require.ErrorIs(t, err, io.EOF)
}

func TestOneConnectionTakesManyRequests(t *testing.T) {
	t.Parallel()
	b := setup(t)
	connection := b.dial(t)
	defer connection.Close()
	answers := bufio.NewReader(connection)
	request := strings.Replace(requestText(http.MethodPost, increment, `{"by":2}`), "Connection: close\r\n", "", 1)

	_, err := io.WriteString(connection, strings.Repeat(request, 50)) // one after the other, without waiting
	require.NoError(t, err)

	for i := range int64(50) {
		require.Equal(t, is("warm", 2*i+2, i+1), readAnswer(t, answers, request).value(t))
	}
}
