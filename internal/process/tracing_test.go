package process

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

func TestTracingIsOffWithoutAnEndpoint(t *testing.T) {
	t.Parallel()
	traces, err := startTracing(t.Context(), "", "api", "v1", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Nil(t, traces)
	if traces.provide() != nil || traces.openDB() != nil { // require.Nil would accept an interface with a nil pointer
		require.Fail(t, "something would be installed")
	}
	var client redis.UniversalClient // would panic if it were used
	require.NoError(t, traces.instrument(client))
	require.NoError(t, traces.close(t.Context()))
}

func TestLogLinesHaveTheTraceID(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	plain := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	log := slog.New(WithTraceID(plain)).With("process", "api")
	ctx := trace.ContextWithSpanContext(context.Background(),
		trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))

	log.InfoContext(ctx, "in a trace", "a", 1)
	log.Info("in none")

	require.Equal(t, "level=INFO msg=\"in a trace\" process=api a=1 trace_id=01000000000000000000000000000000\n"+
		"level=INFO msg=\"in none\" process=api\n", out.String())
}

func TestLoggerIsUnchangedWithoutTracing(t *testing.T) {
	t.Parallel()
	var off *tracing
	log := slog.New(slog.DiscardHandler)
	require.Same(t, log, off.logger(log))
}
