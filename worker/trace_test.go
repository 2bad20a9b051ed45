package worker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/tasks"
)

// The spans that caused the tasks of these tests, as in the tasks' headers.
const (
	firstCause  = "00-01000000000000000000000000000000-0100000000000000-01"
	secondCause = "00-02000000000000000000000000000000-0200000000000000-01"
)

// caused returns a flush that two requests caused.
func caused() *asynq.Task {
	return asynq.NewTaskWithHeaders(tasks.TypeFlush, nil, map[string]string{"traceparent": firstCause, "aw-traceparents": secondCause})
}

func TestTaskIsInTheTraceOfItsFirstCauseAndLinksToTheOthers(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	handler := traced(provider)(asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
		require.Equal(t, trace.TraceID{1}, trace.SpanContextFromContext(ctx).TraceID())
		return nil
	}))

	require.NoError(t, handler.ProcessTask(t.Context(), caused()))

	require.Len(t, recorder.Ended(), 1)
	span := recorder.Ended()[0]
	require.Equal(t, "task flush", span.Name())
	require.Equal(t, trace.SpanID{1}, span.Parent().SpanID())
	require.Len(t, span.Links(), 1)
	require.Equal(t, trace.TraceID{2}, span.Links()[0].SpanContext.TraceID())
}

func TestTaskWithoutARequestHasNoSpan(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	ran := 0
	handler := traced(provider)(asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
		ran++
		require.False(t, trace.SpanContextFromContext(ctx).IsValid(), "its commands would each start a trace")
		return nil
	}))

	for _, task := range []*asynq.Task{tasks.Sweep(time.Now(), time.Second), tasks.Drain(0, 0), tasks.Flush("a", 0)} {
		require.NoError(t, handler.ProcessTask(t.Context(), task))
	}

	require.Equal(t, 3, ran)
	require.Empty(t, recorder.Started())
}

func TestLogLineOfAFailedTaskNamesItsTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	debug := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})
	log := errorLog{slog.New(process.WithTraceID(debug))}

	log.HandleError(t.Context(), caused(), errors.New("nothing is well"))
	require.Contains(t, out.String(), "trace_id=01000000000000000000000000000000\n")

	out.Reset()
	log.HandleError(t.Context(), tasks.Drain(0, 0), errors.New("nothing is well"))
	require.NotContains(t, out.String(), "trace_id")
}
