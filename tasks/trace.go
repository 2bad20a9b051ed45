package tasks

import (
	"context"
	"strings"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Headers with the spans that caused a task, as in https://www.w3.org/TR/trace-context. headerTrace has the first span. headerLinks has
// the spans of the tasks merged with it, separated by spaces.
const (
	headerTrace = "traceparent"
	headerLinks = "aw-traceparents"
)

// maxTraces bounds the traces of one task. An aggregate may have a thousand members.
const maxTraces = 32

var w3c propagation.TraceContext

// traceHeaders returns the headers of the trace in ctx; nil without a sampled one.
func traceHeaders(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return nil
	}
	carrier := make(propagation.MapCarrier, 1)
	w3c.Inject(ctx, carrier)
	return map[string]string{headerTrace: carrier[headerTrace]}
}

// mergeTraces returns the headers of an aggregate; nil if no member has a trace.
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

// Traces returns the spans that caused task, at most 32.
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
