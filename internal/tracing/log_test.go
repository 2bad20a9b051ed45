package tracing_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/tracing"
)

func TestALineOfATraceNamesIt(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	plain := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	log := slog.New(tracing.Identified(plain)).With("process", "api")
	ctx := trace.ContextWithSpanContext(context.Background(),
		trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))

	log.InfoContext(ctx, "in a trace", "a", 1)
	log.Info("in none")

	require.Equal(t, "level=INFO msg=\"in a trace\" process=api a=1 trace_id=01000000000000000000000000000000\n"+
		"level=INFO msg=\"in none\" process=api\n", out.String())
}

func TestALoggerIsLeftAloneWithoutTraces(t *testing.T) {
	t.Parallel()
	var off *tracing.Tracing
	log := slog.New(slog.DiscardHandler)
	require.Same(t, log, off.Logger(log))
}
