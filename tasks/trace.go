package tasks

import (
	"context"
	"strings"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// The headers of a task that say who caused it, as in https://www.w3.org/TR/trace-context: of the first, and, separated by spaces, of
// the others that were merged with it.
const (
	headerTrace = "traceparent"
	headerLinks = "aw-traceparents"
)

// maxTraces bounds the traces that one task belongs to. An aggregate may have a thousand members.
const maxTraces = 32

var w3c propagation.TraceContext

// Within returns an Enqueuer's Offer for one request whose trace is in ctx: its task carries the trace to the worker. Without a trace
// that is sampled it is the Enqueuer's own.
func (e *Enqueuer) Within(ctx context.Context) TracedHints {
	return TracedHints{enqueuer: e, headers: traceHeaders(ctx)}
}

// TracedHints is an Enqueuer on behalf of one request.
type TracedHints struct {
	enqueuer *Enqueuer
	headers  map[string]string
}

// Offer is Enqueuer.Offer. A drain of a whole shard carries no trace.
func (t TracedHints) Offer(key counter.Key, shard counter.Shard, backlog int64) {
	t.enqueuer.offer(hint{key: key, shard: shard, headers: t.headers}, backlog)
}

// traceHeaders is nil where there is no trace, or one that is not sampled.
func traceHeaders(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return nil
	}
	carrier := make(propagation.MapCarrier, 1)
	w3c.Inject(ctx, carrier)
	return map[string]string{headerTrace: carrier[headerTrace]}
}

// mergeTraces makes the headers of an aggregate; nil where no member has any.
func mergeTraces(members []*asynq.Task) map[string]string {
	var traces []string
	for _, m := range members {
		if parent := m.Headers()[headerTrace]; parent != "" && len(traces) < maxTraces {
			traces = append(traces, parent)
		}
	}
	switch len(traces) {
	case 0:
		return nil
	case 1:
		return map[string]string{headerTrace: traces[0]}
	}
	return map[string]string{headerTrace: traces[0], headerLinks: strings.Join(traces[1:], " ")}
}

// Traces returns the spans that caused task, 32 at most. It is none where nobody traces.
func Traces(task *asynq.Task) []trace.SpanContext {
	headers := task.Headers()
	if headers[headerTrace] == "" {
		return nil
	}
	parents := append([]string{headers[headerTrace]}, strings.Fields(headers[headerLinks])...)
	var spans []trace.SpanContext
	for _, parent := range parents[:min(len(parents), maxTraces)] {
		ctx := w3c.Extract(context.Background(), propagation.MapCarrier{headerTrace: parent})
		if span := trace.SpanContextFromContext(ctx); span.IsValid() {
			spans = append(spans, span)
		}
	}
	return spans
}
