package resp_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/api/resp"
)

func TestPipelineIsOneSpan(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	w := serve(t, always(ok), resp.Options{Tracing: sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))}).dial(t)
	w.do("INCR a", "INCR a", "SET b 1", "MGET a b")
	w.one("PING") // the span has ended before this is read
	require.Len(t, spans.Ended(), 1)
	span := spans.Ended()[0]
	require.Equal(t, "resp pipeline", span.Name())
	require.Equal(t, trace.SpanKindServer, span.SpanKind())
	require.Contains(t, span.Attributes(), attribute.Int("db.operation.batch.size", 4))
	require.Contains(t, span.Attributes(), attribute.Int("afterwrite.operations", 5))

	w.do("MULTI", "INCR a", "EXEC")
	w.one("PING")
	require.Len(t, spans.Ended(), 2)
}
