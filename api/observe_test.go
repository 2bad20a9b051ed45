package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// request sends a request to handler, with id as its request ID.
func request(handler http.Handler, method, path, id string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, io.NopCloser(strings.NewReader("")))
	r.Header.Set("X-Request-ID", id)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w
}

var known = counter.Result{Counter: counter.Counter{Value: 42, Version: 7, Exists: true, Known: true}}

func TestRequestsHaveNoMiddlewareByDefault(t *testing.T) {
	t.Parallel()
	out := new(bytes.Buffer)
	info := slog.New(slog.NewTextHandler(out, nil))
	require.Zero(t, api.Observers(always(known), api.Options{}))
	require.Zero(t, api.Observers(always(known), api.Options{Logger: info}))
	debug := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	require.NotZero(t, api.Observers(always(known), api.Options{Logger: debug}))
	require.NotZero(t, api.Observers(always(known), api.Options{Tracing: sdk.NewTracerProvider()}))
}

func TestAccessLogHasTheRequestIDAndNoKey(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	registry := prometheus.NewRegistry()
	handler := api.New(always(known), api.Options{Logger: log, Metrics: registry})
	for _, test := range []struct {
		method, path, route string
		status              int
	}{
		{http.MethodPost, "/v1/counters/secret/increment", "/v1/counters/:key/increment", http.StatusOK},
		{http.MethodGet, "/v1/counters/secret", "/v1/counters/:key", http.StatusOK},
		{http.MethodPut, "/v1/counters/secret", "/v1/counters/:key", http.StatusBadRequest},
		{http.MethodGet, "/nowhere", "", http.StatusNotFound},
		{http.MethodPatch, "/v1/counters/secret", "", http.StatusMethodNotAllowed},
	} {
		out.Reset()
		require.Equal(t, test.status, request(handler, test.method, test.path, "id-1").Code)
		require.Equal(t, 1, strings.Count(out.String(), "\n"), out.String())
		var line map[string]any
		require.NoError(t, json.Unmarshal(out.Bytes(), &line))
		require.Equal(t, "request", line["msg"])
		require.Equal(t, "id-1", line["request_id"])
		require.Equal(t, test.method, line["method"])
		require.InDelta(t, test.status, line["status"], 0)
		require.Positive(t, line["duration"])
		require.NotContains(t, out.String(), "secret")
		if test.route != "" {
			require.Equal(t, test.route, line["route"])
		}
	}
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP afterwrite_writes_total Accepted write operations. Each operation of a batch or a stream counts.
# TYPE afterwrite_writes_total counter
afterwrite_writes_total{op="delete"} 0
afterwrite_writes_total{op="increment"} 1
afterwrite_writes_total{op="set"} 0
`), "afterwrite_writes_total"))
}

func TestTracedFailureIsCountedOnce(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	registry := prometheus.NewRegistry()
	handler := api.New(always(known), api.Options{
		Tracing: provider, Metrics: registry, Health: process.Health{Registry: registry, Logger: slog.New(slog.DiscardHandler)}.Handlers(),
	})

	require.Equal(t, http.StatusBadRequest, request(handler, http.MethodPut, "/v1/counters/a", "").Code)
	require.Equal(t, http.StatusOK, request(handler, http.MethodGet, "/metrics", "").Code)

	require.Len(t, recorder.Ended(), 1, "scrapes are not traced")
	require.Equal(t, "PUT /v1/counters/:key", recorder.Ended()[0].Name())
	require.Equal(t, trace.SpanKindServer, recorder.Ended()[0].SpanKind())
	page := request(handler, http.MethodGet, "/metrics", "").Body.String()
	require.Contains(t, page, `afterwrite_rejected_total{reason="invalid_body"} 1`)
}

// The span has the request ID, and each log line about the request has the trace ID. So each leads to the other.
func TestRequestIDLeadsToTheTraceAndBack(t *testing.T) {
	t.Parallel()
	unknown := &counter.Error{Code: counter.CodeOutcomeUnknown, Err: errors.New("the connection broke")}
	panics := counters(func(context.Context, []counter.Operation, writepath.Options) []counter.Result { panic("a mistake") })
	for name, test := range map[string]struct {
		counters      api.Counters
		method, given string
		lines, status int
	}{
		"answered":         {always(known), http.MethodGet, "id-1", 1, http.StatusOK},
		"without an ID":    {always(known), http.MethodGet, "", 1, http.StatusOK},
		"rejected":         {always(known), http.MethodPut, "id-1", 1, http.StatusBadRequest},
		"failed in a call": {always(counter.Result{Err: unknown}), http.MethodGet, "id-1", 2, http.StatusGatewayTimeout},
		"panicked":         {panics, http.MethodGet, "id-1", 1, http.StatusInternalServerError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			debug := process.WithTraceID(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
			recorder := tracetest.NewSpanRecorder()
			provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
			handler := api.New(test.counters, api.Options{Logger: slog.New(debug), Tracing: provider})

			answer := request(handler, test.method, "/v1/counters/a", test.given)
			require.Equal(t, test.status, answer.Code)
			id := answer.Header().Get("X-Request-ID")
			if test.given != "" {
				require.Equal(t, test.given, id)
			}

			require.Len(t, recorder.Ended(), 1)
			span := recorder.Ended()[0]
			require.Contains(t, span.Attributes(), attribute.StringSlice("http.response.header.x-request-id", []string{id}))
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			require.Len(t, lines, test.lines)
			for _, text := range lines {
				var line map[string]any
				require.NoError(t, json.Unmarshal([]byte(text), &line))
				require.Equal(t, id, line["request_id"], text)
				require.Equal(t, span.SpanContext().TraceID().String(), line["trace_id"], text)
			}
		})
	}
}
