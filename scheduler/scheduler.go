package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// purgeInterval is much shorter than the days that a tombstone is kept, and much longer than a purge takes.
	purgeInterval = time.Hour

	// An eviction runs evictionsInTTL times in CLEAN_TTL, at most once in shortestEviction and at least once in longestEviction.
	shortestEviction, longestEviction = time.Minute, time.Hour
	evictionsInTTL                    = 4

	// sendTimeout bounds one call to Redis. A tick makes at most five.
	sendTimeout = 2 * time.Second

	// queuesKey is Asynq's Redis set of all queue names (base.AllQueues in its source).
	queuesKey = "asynq:queues"

	// maxPending bounds the tasks that wait for a worker. If workers keep up, no task waits, and more tasks would only repeat the work.
	maxPending = 10
)

// Options are the options of a scheduler. All are required.
type Options struct {
	// Client enqueues tasks. Its timeouts must not exceed 2 s, which is the bound of a call.
	Client tasks.Sender
	// Redis is a client of the same Redis, for other commands.
	Redis redis.Cmdable
	// Prefix begins the names of the queues. It must be the prefix of Client.
	Prefix string
	// SweepInterval is the time between two sweeps, in whole milliseconds and at least 1 s: Asynq keeps completed tasks, and so their
	// IDs, for whole seconds.
	SweepInterval time.Duration
	// CleanTTL is how long clean entries stay in Redis.
	CleanTTL time.Duration
	Logger   *slog.Logger
	// Registerer gets the metrics.
	Registerer prometheus.Registerer
}

// Run sends a sweep, a purge and an eviction at once and then at each boundary of their intervals. It blocks until ctx ends and then
// returns nil. Errors of Redis do not end it: it counts them, logs the first and the recovery, and tries again at the next boundary.
func Run(ctx context.Context, options Options) error {
	s, err := newScheduler(options)
	if err != nil {
		return err
	}
	for {
		s.tick(ctx, s.now(ctx))
		if !waitFor(ctx, untilBoundary(time.Now().Add(s.ahead), options.SweepInterval)) {
			return nil
		}
	}
}

// untilBoundary returns the time until the next interval begins. It uses the wall clock: even if the clock is set back, the next boundary
// is at most one interval away.
func untilBoundary(now time.Time, interval time.Duration) time.Duration {
	next := time.UnixMilli((tasks.Bucket(now, interval) + 1) * interval.Milliseconds())
	return next.Sub(now)
}

// waitFor blocks for d. It reports false if ctx ended first.
func waitFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// scheduler is the state of Run between its ticks.
type scheduler struct {
	Options

	queues  []any
	ahead   time.Duration // Redis's clock minus this machine's, when it was read last
	metrics metrics

	purged   int64 // the last bucket whose purge was sent
	evicted  int64 // the last bucket whose eviction was sent
	failing  bool  // the last tick failed
	skipping bool  // the last tick sent nothing, because too many tasks wait
}

type metrics struct{ sweeps, skipped, errors prometheus.Counter }

func newMetrics(r prometheus.Registerer) metrics {
	count := func(name, help string) prometheus.Counter {
		return promauto.With(r).NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return metrics{
		sweeps: count("afterwrite_sweeps_enqueued_total", "Sweeps that this scheduler enqueued, or found enqueued by another one."),
		skipped: count("afterwrite_sweeps_skipped_total",
			"Sweeps that this scheduler did not enqueue because no worker took the earlier ones."),
		errors: count("afterwrite_scheduler_errors_total", "Calls of this scheduler to Redis that failed."),
	}
}

func newScheduler(options Options) (*scheduler, error) {
	if options.SweepInterval < time.Second {
		return nil, fmt.Errorf("sweep interval %s: it must be at least one second", options.SweepInterval)
	}
	s := &scheduler{Options: options, metrics: newMetrics(options.Registerer), purged: -1, evicted: -1}
	for _, queue := range tasks.QueuesIn(options.Redis, options.Prefix).Names() {
		s.queues = append(s.queues, queue)
	}
	return s, nil
}

// tick sends the tasks that are due at now, but none while too many wait for a worker. If one step fails, it still tries the others.
func (s *scheduler) tick(ctx context.Context, now time.Time) {
	errs := []error{s.countPending(ctx), s.publishQueues(ctx)}
	if s.skipping {
		s.metrics.skipped.Inc()
	} else {
		errs = append(errs, s.sweep(ctx, now), s.purge(ctx, now), s.evict(ctx, now))
	}
	if ctx.Err() != nil {
		return // errors of a process that is stopping are not logged
	}
	s.report(errors.Join(errs...))
}

// now returns the time by Redis's clock, which all schedulers and workers share. If Redis does not answer, it uses the difference that the
// two clocks had at the last answer.
func (s *scheduler) now(ctx context.Context) time.Time {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	before := time.Now()
	if there, err := s.Redis.Time(ctx).Result(); err == nil {
		s.ahead = there.Round(0).Sub(before.Round(0))
	}
	return time.Now().Add(s.ahead)
}

// countPending sets skipping if too many periodic tasks wait for a worker. Without a worker 720 an hour would pile up.
func (s *scheduler) countPending(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	// LLEN of Asynq's list of pending tasks (base.PendingKey in its source) takes constant time. Asynq's Inspector would run a script of a
	// dozen commands and sample memory.
	pending, err := s.Redis.LLen(ctx, "asynq:{"+s.Prefix+tasks.QueueSweep+"}:pending").Result()
	if err != nil {
		s.metrics.errors.Inc()
		return fmt.Errorf("count pending sweeps: %w", err)
	}
	skip := pending > maxPending
	switch {
	case skip && !s.skipping:
		s.Logger.Warn("no worker takes the sweeps: sending no more until one does", "pending", pending)
	case !skip && s.skipping:
		s.Logger.Info("a worker takes the sweeps again")
	}
	s.skipping = skip
	return nil
}

func (s *scheduler) sweep(ctx context.Context, now time.Time) error {
	if err := s.send(ctx, tasks.Sweep(now, s.SweepInterval)); err != nil {
		return err
	}
	s.metrics.sweeps.Inc()
	return nil
}

// purge sends one purge for each hour. If it fails, the next tick tries again.
func (s *scheduler) purge(ctx context.Context, now time.Time) error {
	bucket := tasks.Bucket(now, purgeInterval)
	if bucket == s.purged {
		return nil
	}
	if err := s.send(ctx, tasks.Purge(now, purgeInterval)); err != nil {
		return err
	}
	s.purged = bucket
	return nil
}

// evict is purge for evictions.
func (s *scheduler) evict(ctx context.Context, now time.Time) error {
	interval := min(max(s.CleanTTL/evictionsInTTL, shortestEviction), longestEviction)
	bucket := tasks.Bucket(now, interval)
	if bucket == s.evicted {
		return nil
	}
	if err := s.send(ctx, tasks.Evict(now, interval)); err != nil {
		return err
	}
	s.evicted = bucket
	return nil
}

func (s *scheduler) send(ctx context.Context, task *asynq.Task) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := tasks.Send(ctx, s.Client, task); err != nil {
		s.metrics.errors.Inc()
		return err
	}
	return nil
}

// publishQueues adds the names of our queues to Asynq's set of queues. An Asynq client adds a queue's name only with its first task. So
// after Redis was emptied (FLUSHALL, a failover to a new machine), the names are missing until all clients restart. Workers do not need
// the names, but Asynq's Inspector does. Asynqmon, the queue metrics and the redrive of dead letters use the Inspector.
func (s *scheduler) publishQueues(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := s.Redis.SAdd(ctx, queuesKey, s.queues...).Err(); err != nil {
		s.metrics.errors.Inc()
		return fmt.Errorf("publish the queues: %w", err)
	}
	return nil
}

func (s *scheduler) report(err error) {
	switch {
	case err != nil && !s.failing:
		s.Logger.Warn("periodic tasks cannot be sent; trying again at each sweep", "interval", s.SweepInterval, "error", err)
	case err == nil && s.failing:
		s.Logger.Info("periodic tasks are sent again")
	}
	s.failing = err != nil
}
