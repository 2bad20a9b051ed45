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
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// taskCheckInterval is how long a worker without a task waits before it looks for one again. The drains of the shards come
	// one after the other (see tasks.Enqueuer): who looks seldom finds many at once, and the writes have to wait for them. Each
	// look is a script call for each queue: 20 looks a second are 3 ms of Redis's time. An idle worker asks less often: see backoff.
	taskCheckInterval = 50 * time.Millisecond

	// delayedTaskCheckInterval is the same for tasks that were delayed: retries, and drains to come. Each look is two
	// script calls for each queue.
	delayedTaskCheckInterval = 250 * time.Millisecond

	// janitorInterval is how often Asynq deletes the sweeps and purges that are done, after their retention. There are at most 60
	// in a minute, of some hundred bytes.
	janitorInterval = time.Minute

	// shutdownTimeout is how long running tasks may go on after a SIGTERM. What they leave is still dirty.
	shutdownTimeout = 8 * time.Second
)

// Options are what a Worker is made of. All of it stays the caller's to close, after Run.
type Options struct {
	Config     config.Config
	Redis      redis.UniversalClient // for Asynq
	Cache      *cache.Cache
	Store      Store
	Registerer prometheus.Registerer
	Logger     *slog.Logger
	Tracing    trace.TracerProvider // nil: nothing is traced
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
	client := tasks.NewSender(o.Redis, prefix)
	m := newMetrics(o.Registerer, o.Store.Up)
	r := &retries{
		cache: o.Cache, sender: client, inspector: asynq.NewInspectorFromRedisClient(o.Redis),
		metrics: m, logger: o.Logger,
		maxAttempts: c.MaxAttempts, backoff: c.RetryBackoff, sweepInterval: c.SweepInterval,
	}
	f := &Flusher{
		cache: o.Cache, store: o.Store, retries: r, metrics: m, logger: o.Logger,
		batching: newBatching(c.FlushBatch, c.FlushInterval, o.Registerer), deferred: newDeferrals(), turns: newTurns(),
	}
	e := &evictor{cache: o.Cache, metrics: m, logger: o.Logger, cleanTTL: c.CleanTTL}
	h := &handlers{
		cache: o.Cache, store: o.Store, flusher: f, retries: r, evictor: e, sender: client, logger: o.Logger,
		flushInterval: c.FlushInterval, tombstoneTTL: c.TombstoneTTL, metrics: m, tracing: o.Tracing,
	}
	own := &selfDrain{
		cache: o.Cache, store: o.Store, flusher: f, metrics: m, logger: o.Logger, owner: leaseOwner(),
		interval: c.SweepInterval, age: 2*c.FlushInterval + 2*c.SweepInterval,
	}
	server := asynq.NewServerFromRedisClient(newBackoff(o.Redis, prefix), asynq.Config{
		Concurrency:              c.WorkerConcurrency,
		Queues:                   tasks.Queues(prefix),
		TaskCheckInterval:        taskCheckInterval,
		DelayedTaskCheckInterval: delayedTaskCheckInterval,
		JanitorInterval:          janitorInterval,
		// A key that is written all the time enqueues no second task, so the group must not close after a second of
		// silence: the grace period is the whole interval.
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

// Run works until ctx ends, then lets running tasks end, within shutdownTimeout, and returns.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.server.Start(w.handlers.mux()); err != nil {
		return fmt.Errorf("start the task server: %w", err)
	}
	var own sync.WaitGroup
	own.Go(func() { w.own.run(ctx) }) // its drains end with ctx: what they leave is still dirty
	own.Go(func() { w.handlers.evictor.watch(ctx) })
	<-ctx.Done()
	w.server.Shutdown()
	own.Wait()
	return nil
}

// DrainAll flushes everything that is dirty now, on this goroutine's time, beside whatever the tasks do; see
// Flusher.DrainAll. It may be called without Run.
func (w *Worker) DrainAll(ctx context.Context, owner string) (rows, left int64, err error) {
	return w.handlers.flusher.DrainAll(ctx, owner)
}

// isFailure tells Asynq which errors count: only that Postgres refused a row. Anything else, an outage, a worker that
// died, a bug, must never use up the retries of a task, because Asynq archives it then.
func isFailure(err error) bool {
	_, refused := errors.AsType[*refusedError](err)
	return refused
}

// retryDelay is the wait before a failed task is run again.
func (r *retries) retryDelay(retried int, err error, _ *asynq.Task) time.Duration {
	if isFailure(err) {
		return r.delay(retried + 1)
	}
	return r.pace.take(time.Now())
}

// errorLog logs the errors of tasks, each as loudly as it deserves.
type errorLog struct{ logger *slog.Logger }

func (l errorLog) HandleError(ctx context.Context, task *asynq.Task, err error) {
	level := slog.LevelWarn
	switch {
	case isFailure(err):
		level = slog.LevelInfo // the refusal itself has been logged
	case asynq.IsPanicError(err), store.Classify(err) == store.Operator:
		level = slog.LevelError
	case store.Classify(err) == store.Outage, store.Classify(err) == store.Canceled:
		level = slog.LevelDebug // the breaker logs the outage, once
	}
	message := "task failed; it will be tried again"
	if errors.Is(err, asynq.SkipRetry) {
		message = "task failed for the last time; it is archived"
	}
	id, _ := asynq.GetTaskID(ctx)
	l.logger.Log(inTrace(ctx, task), level, message, "task", task.Type(), "id", id, "error", err)
}

// asynqLogger hands Asynq's own messages to slog.
type asynqLogger struct{ logger *slog.Logger }

func (l asynqLogger) Debug(args ...any) { l.logger.Debug("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Info(args ...any)  { l.logger.Info("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Warn(args ...any)  { l.logger.Warn("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Error(args ...any) { l.logger.Error("asynq: " + fmt.Sprint(args...)) }
func (l asynqLogger) Fatal(args ...any) { l.logger.Error("asynq: " + fmt.Sprint(args...)) }
