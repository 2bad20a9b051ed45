package tasks_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

// of returns a flush with the trace of the n-th request. If n is 0, it has no trace.
func of(n int) *asynq.Task {
	headers := map[string]string{}
	if n > 0 {
		headers["traceparent"] = fmt.Sprintf("00-%032x-%016x-01", n, n)
	}
	return asynq.NewTaskWithHeaders(tasks.TypeFlush, tasks.Flush("a", 0).Payload(), headers)
}

func TestAggregateHasTheTracesOfItsMembers(t *testing.T) {
	t.Parallel()
	causes := tasks.Traces(tasks.Aggregate("0", []*asynq.Task{of(0), of(1), of(0), of(2), of(3)}))
	require.Len(t, causes, 3)
	for i, cause := range causes {
		require.Equal(t, fmt.Sprintf("%032x", i+1), cause.TraceID().String())
		require.True(t, cause.IsSampled())
	}
	require.Len(t, tasks.Traces(tasks.Aggregate("0", []*asynq.Task{of(7)})), 1)
}

func TestAggregateHasABoundedNumberOfTraces(t *testing.T) {
	t.Parallel()
	var members []*asynq.Task
	for i := range 1000 {
		members = append(members, of(i+1))
	}
	require.Len(t, tasks.Traces(tasks.Aggregate("0", members)), 32)
}

func TestTaskWithoutATraceHasNoHeaders(t *testing.T) {
	t.Parallel()
	merged := tasks.Aggregate("0", []*asynq.Task{of(0), tasks.Flush("b", 0)})
	require.Empty(t, merged.Headers())
	require.Empty(t, tasks.Traces(merged))
	require.Empty(t, tasks.Traces(asynq.NewTaskWithHeaders(tasks.TypeFlush, nil, map[string]string{"traceparent": "nonsense"})))
}

// headers waits for a task and returns its headers.
func (b *testBundle) headers(t *testing.T, id string) map[string]string {
	t.Helper()
	var info *asynq.TaskInfo
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		var err error
		if info, err = b.inspector.GetTaskInfo(tasks.QueueFlush, id); err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	return info.Headers
}

func TestOnlyASampledTraceIsPassedOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, _ := options(t)
	e := tasks.NewEnqueuer(b.client, o)
	defer e.Close(context.WithoutCancel(t.Context()))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})

	e.Offer(trace.ContextWithSpanContext(t.Context(), span), "traced", 0, 1)
	e.Offer(trace.ContextWithSpanContext(t.Context(), span.WithTraceFlags(0)), "unsampled", 0, 1)
	e.Offer(t.Context(), "plain", 0, 1)

	require.Equal(t, map[string]string{"traceparent": "00-01000000000000000000000000000000-0200000000000000-01"}, b.headers(t, "flush:traced"))
	require.Empty(t, b.headers(t, "flush:unsampled"))
	require.Empty(t, b.headers(t, "flush:plain"))
}
