package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// taskCheckInterval is the pause between two polls of a worker that has found no task. Drains come one after the other (see
	// tasks.Enqueuer): a longer pause would run many of them at once, and writes would wait for them. A poll is a script call for each
	// queue: 20 polls a second are 3 ms of Redis's time. An idle worker polls less often: see pollClient.
	taskCheckInterval = 50 * time.Millisecond

	// delayedTaskCheckInterval is the same for delayed tasks: retries, and drains with a delay. Each poll is two script calls for each
	// queue.
	delayedTaskCheckInterval = 250 * time.Millisecond

	// janitorInterval is how often Asynq deletes completed sweeps and purges after their retention: at most 60 a minute, of some hundred
	// bytes each.
	janitorInterval = time.Minute

	// shutdownTimeout is how long running tasks may continue after a SIGTERM. Keys that they leave stay dirty.
	shutdownTimeout = 8 * time.Second
)

// Options are the parts of a Worker. The caller closes them, after Run.
type Options struct {
	Config     config.Config
	Redis      redis.UniversalClient // for Asynq
	Cache      *cache.Cache
	Store      Store
	Mappings   *mapping.Mappings // those of the Store; nil: none
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	Tracing    trace.TracerProvider // nil: no tracing
}

// Worker runs the tasks.
type Worker struct {
	server   *asynq.Server
	handlers *handlers
	own      *selfDrain
}

// New returns a Worker, without starting it.
func New(o Options) *Worker {
	c := o.Config
	prefix := o.Cache.Prefix()
	queues, timed := tasks.QueuesIn(o.Redis, prefix), tasks.OnRedisTime(o.Redis)
	client := tasks.NewSender(o.Redis, prefix)
	m := newMetrics(o.Registerer, o.Logger, o.Mappings, o.Store.Up)
	m.brokenFor = max(leastBrokenFor, 3*(2*c.FlushInterval+c.SweepInterval)) // a retry may wait for a sweep
	inspector := asynq.NewInspectorFromRedisClient(timed)
	r := &retries{
		cache: o.Cache, sender: client, queue: queues.Retry(), inspector: inspector,
		metrics: m, logger: o.Logger,
		maxAttempts: c.MaxAttempts, backoff: c.RetryBackoff, sweepInterval: c.SweepInterval,
	}
	f := &Flusher{
		cache: o.Cache, store: o.Store, retries: r, metrics: m, logger: o.Logger,
		batching: newBatching(c.FlushBatch, c.FlushInterval, o.Registerer), deferred: newDeferrals(), turns: newTurns(),
	}
	e := &evictor{cache: o.Cache, metrics: m, logger: o.Logger, cleanTTL: c.CleanTTL}
	h := &handlers{
		cache: o.Cache, store: o.Store, flusher: f, retries: r, evictor: e, sender: client, inspector: inspector, queues: queues,
		logger:        o.Logger,
		flushInterval: c.FlushInterval, tombstoneTTL: c.TombstoneTTL, history: o.Cache.HasHistory(), retention: c.HistoryRetention,
		metrics: m, tracing: o.Tracing,
	}
	own := &selfDrain{
		cache: o.Cache, store: o.Store, flusher: f, metrics: m, logger: o.Logger, owner: leaseOwner(),
		interval: c.SweepInterval, age: 2*c.FlushInterval + 2*c.SweepInterval, flush: c.FlushInterval,
	}
	server := asynq.NewServerFromRedisClient(newPollClient(timed, queues), asynq.Config{
		Concurrency:              c.WorkerConcurrency,
		Queues:                   queues.Weights(),
		TaskCheckInterval:        taskCheckInterval,
		DelayedTaskCheckInterval: delayedTaskCheckInterval,
		JanitorInterval:          janitorInterval,
		// A key that is written all the time enqueues no second task, so the group must not close after a second of silence: the
		// grace period is the whole interval.
		GroupGracePeriod: c.FlushInterval,
		GroupMaxDelay:    c.FlushInterval,
		GroupMaxSize:     c.FlushBatch,
		GroupAggregator:  asynq.GroupAggregatorFunc(tasks.Aggregate),
		IsFailure:        isFailure,
		RetryDelayFunc:   r.retryDelay,
		ErrorHandler:     errorLog{o.Logger},
		Logger:           asynqLogger{o.Logger},
		LogLevel:         asynq.WarnLevel,
		ShutdownTimeout:  shutdownTimeout,
	})
	return &Worker{server: server, handlers: h, own: own}
}

// Run runs tasks until ctx ends, then waits for running tasks, shutdownTimeout at most.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.server.Start(w.handlers.mux()); err != nil {
		return fmt.Errorf("start the task server: %w", err)
	}
	var own sync.WaitGroup
	own.Go(func() { w.own.run(ctx) }) // its drains end with ctx; keys that they leave stay dirty
	own.Go(func() { w.handlers.evictor.watch(ctx) })
	<-ctx.Done()
	w.server.Shutdown()
	own.Wait()
	return nil
}

// DrainAll flushes everything that is dirty now, independently of tasks, and blocks until it is done; see Flusher.DrainAll. It does not
// need Run.
func (w *Worker) DrainAll(ctx context.Context, owner string) (rows, left int64, err error) {
	return w.handlers.flusher.DrainAll(ctx, owner)
}

// BrokenMappings returns the mappings whose tables this worker could not write lately, each with the error. It does not block.
func (w *Worker) BrokenMappings() map[string]string { return w.handlers.metrics.brokenMappings() }

// isFailure tells Asynq which errors count: only refusals of a row by Postgres. An outage, a dead worker or a bug must not use up the
// retries of a task, because Asynq would archive it.
func isFailure(err error) bool {
	_, refused := errors.AsType[*refusedError](err)
	return refused
}

// retryDelay is the wait before a failed task runs again.
func (r *retries) retryDelay(retried int, err error, _ *asynq.Task) time.Duration {
	if isFailure(err) {
		return r.delay(retried + 1)
	}
	if rerun, ok := errors.AsType[*rerunError](err); ok {
		return rerun.after
	}
	return r.outage.take(time.Now())
}

// errorLog logs the errors of tasks, at a level that depends on the error.
type errorLog struct{ logger *slog.Logger }

func (l errorLog) HandleError(ctx context.Context, task *asynq.Task, err error) {
	level := slog.LevelWarn
	switch {
	case isRerun(err):
		return
	case isFailure(err):
		level = slog.LevelInfo // the refusal itself has been logged
	case asynq.IsPanicError(err), store.Classify(err) == store.Operator:
		level = slog.LevelError
	case store.Classify(err) == store.Outage, store.Classify(err) == store.Canceled:
		level = slog.LevelDebug // the breaker logs an outage, once
	}
	message := "task failed; it will be retried"
	if errors.Is(err, asynq.SkipRetry) {
		message = "task failed for the last time and is archived"
	}
	id, _ := asynq.GetTaskID(ctx)
	l.logger.Log(inTrace(ctx, task), level, message, "task", task.Type(), "id", id, "error", err)
}

// traced makes a span for each task that traced requests caused. The span is in the trace of the first such request, so that its sampling
// applies, and links to the others. Other tasks, such as sweeps and drains, get no span: each would start its own trace, dozens a second,
// without any request.
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
			if err != nil && !isRerun(err) {
				span.RecordError(err)
				span.SetStatus(codes.Error, err.Error())
			}
			return err
		})
	}
}

// inTrace adds the trace of task, if it has one, to ctx, for a log line outside of its span.
func inTrace(ctx context.Context, task *asynq.Task) context.Context {
	if causes := tasks.Traces(task); len(causes) > 0 {
		return trace.ContextWithRemoteSpanContext(ctx, causes[0])
	}
	return ctx
}

// asynqLogger passes Asynq's own messages to slog.
type asynqLogger struct{ logger *slog.Logger }

func (l asynqLogger) Debug(args ...any) { l.logger.Debug("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Info(args ...any)  { l.logger.Info("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Warn(args ...any)  { l.logger.Warn("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Error(args ...any) { l.logger.Error("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Fatal(args ...any) { l.logger.Error("asynq: " + fmt.Sprint(args...)) }
