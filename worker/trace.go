package worker

import (
	"context"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/tasks"
)

// traced makes a span of each task. It is in the trace of the first request that caused it, so that the sampling is the request's, and
// linked to those of the others.
func traced(provider trace.TracerProvider) asynq.MiddlewareFunc {
	tracer := provider.Tracer("github.com/afterwrite/afterwrite/worker")
	return func(next asynq.Handler) asynq.Handler {
		return asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
			options := []trace.SpanStartOption{
				trace.WithSpanKind(trace.SpanKindConsumer),
				trace.WithAttributes(attribute.String("messaging.system", "asynq"), attribute.String("afterwrite.task", task.Type())),
			}
			if causes := tasks.Traces(task); len(causes) > 0 {
				ctx = trace.ContextWithRemoteSpanContext(ctx, causes[0])
				links := make([]trace.Link, 0, len(causes)-1)
				for _, cause := range causes[1:] {
					links = append(links, trace.Link{SpanContext: cause})
				}
				options = append(options, trace.WithLinks(links...))
			}
			ctx, span := tracer.Start(ctx, "task "+task.Type(), options...)
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
