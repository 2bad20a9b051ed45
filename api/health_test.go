package api_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/process"
)

func TestHealthIsServedWithTheAPI(t *testing.T) {
	t.Parallel()
	b := serve(t, failing(counter.CodeCacheUnavailable, 0), api.Options{})

	a := b.send(t, http.MethodGet, "/healthz", "")
	require.Equal(t, http.StatusOK, a.StatusCode)
	require.JSONEq(t, `{"status":"ok","version":"1.2.3"}`, a.text)
	require.NotEmpty(t, a.Header.Get("X-Request-ID"))
	require.Equal(t, http.StatusOK, b.send(t, http.MethodGet, "/readyz", "").StatusCode)
	a = b.send(t, http.MethodPost, "/healthz", "")
	require.Equal(t, http.StatusMethodNotAllowed, a.StatusCode)
	require.Equal(t, "method_not_allowed", a.problem(t).Code)
}

func TestReadinessOfAStoppingProcessIsDocumented(t *testing.T) {
	t.Parallel()
	stopping := func() bool { return true }
	up := func(context.Context) error { return nil }
	health := process.Health{
		Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler), Stopping: stopping,
		Dependencies: []process.Dependency{{Name: "redis", Required: true, Ping: up}, {Name: "postgres", Ping: up}},
	}
	b := &bundle{addr: start(t, api.New(always(counter.Result{}), api.Options{Health: health.Handlers(), Stopping: stopping}))}
	a := b.send(t, http.MethodGet, "/readyz", "")
	require.Equal(t, http.StatusServiceUnavailable, a.StatusCode)
	require.Contains(t, a.text, `"stopping"`)
}

func TestAnswersCloseTheirConnectionsBeforeShutdown(t *testing.T) {
	t.Parallel()
	var stopping atomic.Bool
	health := process.Health{Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler), Stopping: stopping.Load}
	server := httptest.NewServer(api.New(always(counter.Result{}), api.Options{Health: health.Handlers(), Stopping: stopping.Load}))
	defer server.Close()
	get := func(path string) (status int, body string, closes bool) {
		response, err := server.Client().Get(server.URL + path)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(text), response.Close
	}
	status, _, closes := get("/readyz")
	require.Equal(t, http.StatusOK, status)
	require.False(t, closes)

	stopping.Store(true)

	status, body, closes := get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, `"stopping"`)
	require.True(t, closes, "a client must open its next connection elsewhere")
	status, _, closes = get("/v1/counters/a")
	require.Equal(t, http.StatusNotFound, status, "requests are still answered")
	require.True(t, closes)
}
