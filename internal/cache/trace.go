package cache

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// maxLinks bounds the traces that one span links to.
const maxLinks = 31

// WithTracing makes a span for each call that carries a traced request. Call it before the first Do.
func (w *Writer) WithTracing(provider trace.TracerProvider) *Writer {
	w.tracer = provider.Tracer("github.com/afterwrite/afterwrite/internal/cache")
	if w.lanes != nil {
		w.lanes.tracer = w.tracer
	}
	return w
}

// untraced ends a call without a span.
func untraced() {}

// begin returns the context of one call for batch, and a function that ends its span. A call serves many requests: its span is in the trace
// of the first request and links to the others.
func (w *Writer) begin(batch []*request) (ctx context.Context, end func()) {
	ctx = context.Background()
	if w.tracer == nil {
		return ctx, untraced
	}
	var first trace.SpanContext
	var links []trace.Link
	for _, r := range batch {
		span := trace.SpanContextFromContext(r.ctx)
		switch {
		case !span.IsSampled():
		case !first.IsValid():
			first = span
		case len(links) < maxLinks:
			links = append(links, trace.Link{SpanContext: span})
		}
	}
	if !first.IsValid() {
		return ctx, untraced
	}
	ctx, span := w.tracer.Start(trace.ContextWithSpanContext(ctx, first), "write to redis",
		trace.WithLinks(links...), trace.WithAttributes(attribute.Int("afterwrite.requests", len(batch))))
	return ctx, func() { span.End() }
}
