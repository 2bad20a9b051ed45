package tracing

import (
	"context"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// inside makes spans only within traces. Asynq asks Redis for tasks five times a second, sweeps count keys, /readyz pings: without it
// each of these commands would be a trace of its own.
type inside struct{ trace.TracerProvider }

// Tracer implements trace.TracerProvider.
func (p inside) Tracer(name string, options ...trace.TracerOption) trace.Tracer { //nolint:ireturn // the interface has it so
	return insideTracer{p.TracerProvider.Tracer(name, options...)}
}

type insideTracer struct{ trace.Tracer }

// Start implements trace.Tracer.
//
//nolint:ireturn,spancheck // the interface has it so; the caller ends the span
func (t insideTracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, noop.Span{}
	}
	return t.Tracer.Start(ctx, name, options...)
}
