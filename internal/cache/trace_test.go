package cache

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// from returns a request in the n-th trace.
func from(n byte, flags trace.TraceFlags) *request {
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}, TraceFlags: flags})
	return &request{ctx: trace.ContextWithSpanContext(context.Background(), span)}
}

func TestCallIsInTheTraceOfItsFirstRequestAndLinksToTheOthers(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	w := new(Writer).WithTracing(sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder)))

	ctx, end := w.begin([]*request{from(9, 0), {ctx: t.Context()}, from(1, trace.FlagsSampled), from(2, trace.FlagsSampled)})
	require.Equal(t, trace.TraceID{1}, trace.SpanContextFromContext(ctx).TraceID())
	end()

	require.Len(t, recorder.Ended(), 1)
	span := recorder.Ended()[0]
	require.Equal(t, trace.SpanID{1}, span.Parent().SpanID())
	require.Len(t, span.Links(), 1)
	require.Equal(t, trace.TraceID{2}, span.Links()[0].SpanContext.TraceID())
}

func TestCallWithoutTracedRequestsHasNoSpan(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	w := new(Writer).WithTracing(sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder)))

	_, end := w.begin([]*request{from(9, 0), {ctx: t.Context()}})
	end()

	require.Empty(t, recorder.Started())
}

func TestWriterWithoutTracingAllocatesNothingForIt(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts all goroutines
	w, batch := new(Writer), []*request{from(1, trace.FlagsSampled)}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, end := w.begin(batch)
		end()
	}))
}
