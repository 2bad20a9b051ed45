package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

var errSecret = errors.New("dial tcp 10.1.2.3:6379: user aw password hunter2: refused")

type handlerBundle struct {
	handler http.Handler
	log     *bytes.Buffer
}

func setupHandler(t *testing.T, next http.Handler, dependencies ...Dependency) *handlerBundle {
	t.Helper()
	b := &handlerBundle{log: new(bytes.Buffer)}
	log, err := newLogger(b.log, "text", "info", "test")
	require.NoError(t, err)
	b.handler = Health{Registry: NewRegistry(), Logger: log, Dependencies: dependencies}.Handler(next)
	return b
}

func (b *handlerBundle) do(t *testing.T, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	b.handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, target, nil))
	return answer
}

type readyBody struct {
	Status string            `json:"status"`
	Checks map[string]string `json:"checks"`
}

func (b *handlerBundle) ready(t *testing.T) (int, readyBody) {
	t.Helper()
	answer := b.do(t, http.MethodGet, "/readyz")
	var body readyBody
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &body))
	return answer.Code, body
}

func passes(context.Context) error { return nil }

func fails(context.Context) error { return errSecret }

func TestHealthzIsOKWithoutDependencies(t *testing.T) {
	t.Parallel()
	b := setupHandler(t, nil, Dependency{Name: "redis", Required: true, Ping: fails})

	answer := b.do(t, http.MethodGet, "/healthz")

	require.Equal(t, http.StatusOK, answer.Code)
	require.JSONEq(t, `{"status":"ok"}`, answer.Body.String())
}

func TestHealthzHasTheVersion(t *testing.T) {
	t.Parallel()
	answer := httptest.NewRecorder()

	Health{Registry: NewRegistry(), Version: "1.2.3"}.Handler(nil).
		ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))

	require.JSONEq(t, `{"status":"ok","version":"1.2.3"}`, answer.Body.String())
}

func TestReadyzIsOKWhenEveryCheckPasses(t *testing.T) {
	t.Parallel()
	b := setupHandler(t, nil,
		Dependency{Name: "redis", Required: true, Ping: passes},
		Dependency{Name: "postgres", Ping: passes})

	status, body := b.ready(t)

	require.Equal(t, http.StatusOK, status)
	require.Equal(t, readyBody{Status: "ok", Checks: map[string]string{"redis": "ok", "postgres": "ok"}}, body)
}

func TestReadyzOnlyReportsOptionalDependencies(t *testing.T) {
	t.Parallel()
	b := setupHandler(t, nil,
		Dependency{Name: "redis", Required: true, Ping: passes},
		Dependency{Name: "postgres", Ping: fails})

	status, body := b.ready(t)

	require.Equal(t, http.StatusOK, status)
	require.Equal(t, readyBody{Status: "ok", Checks: map[string]string{"redis": "ok", "postgres": "unreachable"}}, body)
}

func TestReadyzReportsAllChecksWhenARequiredOneFails(t *testing.T) {
	t.Parallel()
	for state, ping := range map[string]func(context.Context) error{"ok": passes, "unreachable": fails} {
		b := setupHandler(t, nil,
			Dependency{Name: "redis", Required: true, Ping: fails},
			Dependency{Name: "postgres", Ping: ping})

		status, body := b.ready(t)

		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Equal(t, readyBody{Status: "unavailable", Checks: map[string]string{"redis": "unreachable", "postgres": state}}, body)
	}
}

func TestReadyzKeepsTheReasonForTheLog(t *testing.T) {
	t.Parallel()
	b := setupHandler(t, nil, Dependency{Name: "redis", Required: true, Ping: fails})

	answer := b.do(t, http.MethodGet, "/readyz")

	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
	require.JSONEq(t, `{"status":"unavailable","checks":{"redis":"unreachable"}}`, answer.Body.String())
	require.Equal(t, "1", answer.Header().Get("Retry-After"))
	require.Contains(t, b.log.String(), "10.1.2.3")
}

func TestReadyzLogsAChangeOfStateOnce(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	b := setupHandler(t, nil, Dependency{Name: "redis", Required: true, Ping: func(context.Context) error {
		if broken.Load() {
			return errSecret
		}
		return nil
	}})

	for _, state := range []bool{false, false, true, true, true, false, false} {
		broken.Store(state)
		b.ready(t)
	}

	require.Equal(t, 1, strings.Count(b.log.String(), "check fails"))
	require.Equal(t, 1, strings.Count(b.log.String(), "passes again"))
}

func TestReadyzDoesNotWaitForAHangingPingNorRepeatIt(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var started atomic.Int32
	b := setupHandler(t, nil, Dependency{Name: "redis", Required: true, Ping: func(context.Context) error {
		started.Add(1)
		<-release
		return nil
	}})
	defer close(release)

	for range 2 {
		status, body := b.ready(t)
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Equal(t, "unreachable", body.Checks["redis"])
	}

	require.EqualValues(t, 1, started.Load())
}

func TestReadyzCountsAPanicAsAFailure(t *testing.T) {
	t.Parallel()
	b := setupHandler(t, nil, Dependency{Name: "redis", Required: true, Ping: func(context.Context) error { panic("oops") }})

	status, _ := b.ready(t)

	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, b.log.String(), "oops")
}

func TestMetricsShowTheRuntimeAndTheProcess(t *testing.T) {
	t.Parallel()
	b := setupHandler(t, nil)

	answer := b.do(t, http.MethodGet, "/metrics")

	require.Equal(t, http.StatusOK, answer.Code)
	require.Contains(t, answer.Body.String(), "go_goroutines")
}

func TestOtherPathsGoToNextUnchanged(t *testing.T) {
	t.Parallel()
	var got []string
	b := setupHandler(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = append(got, r.URL.EscapedPath())
	}))

	paths := []string{"/v1/counters/a%2F%2Fb", "/v1/counters//", "/v1/../x", "/healthz/", "/"}
	for _, path := range paths {
		b.do(t, http.MethodGet, path)
	}

	require.Equal(t, paths, got)
}

func TestOtherPathsAreNotFoundWithoutNext(t *testing.T) {
	t.Parallel()
	require.Equal(t, http.StatusNotFound, setupHandler(t, nil).do(t, http.MethodGet, "/v1").Code)
}

func TestOnlyGetAndHeadAreAllowed(t *testing.T) {
	t.Parallel()
	b := setupHandler(t, nil)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		answer := b.do(t, http.MethodPost, path)
		require.Equal(t, http.StatusMethodNotAllowed, answer.Code)
		require.Equal(t, "GET, HEAD", answer.Header().Get("Allow"))
	}
}
