package worker

import (
	"context"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/tasks"
)

// traced makes a span of each task that a traced request caused. It is in the trace of the first of them, so that the sampling is the
// request's, and linked to those of the others. A task that none caused, a sweep or a drain, is no span, and so are its commands:
// each would be a trace of its own, dozens a second, in which nobody's request is.
func traced(provider trace.TracerProvider) asynq.MiddlewareFunc {
	tracer := provider.Tracer("github.com/afterwrite/afterwrite/worker")
	return func(next asynq.Handler) asynq.Handler {
		return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
			causes := tasks.Traces(task)
			if len(causes) == 0 {
				return next.ProcessTask(ctx, task)
			}
			links := make([]trace.Link, 0, len(causes)-1)
			for _, cause := range causes[1:] {
				links = append(links, trace.Link{SpanContext: cause})
			}
			ctx, span := tracer.Start(trace.ContextWithRemoteSpanContext(ctx, causes[0]), "task "+task.Type(),
				trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...),
				trace.WithAttributes(attribute.String("messaging.system", "asynq"), attribute.String("afterwrite.task", task.Type())))
			defer span.End()
			err := next.ProcessTask(ctx, task)
			if err != nil {
				span.RecordError(err)
				span.SetStatus(codes.Error, err.Error())
			}
			return err
		})
	}
}

// inTrace returns ctx in the trace that task is in, if it is in one, for a line about it outside of its span.
func inTrace(ctx context.Context, task *asynq.Task) context.Context {
	if causes := tasks.Traces(task); len(causes) > 0 {
		return trace.ContextWithRemoteSpanContext(ctx, causes[0])
	}
	return ctx
}
