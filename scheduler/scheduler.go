package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// purgeInterval is short against the days that a tombstone is kept, and long against what a purge costs.
	purgeInterval = time.Hour

	// An eviction goes through all entries four times in CLEAN_TTL, but no more often than shortestEviction, and once in
	// longestEviction at least.
	shortestEviction, longestEviction = time.Minute, time.Hour
	evictionsInTTL                    = 4

	// sendTimeout bounds one call to Redis; there are at most five in a tick.
	sendTimeout = 2 * time.Second

	// queuesKey is where Asynq keeps the names of all queues (base.AllQueues in its source).
	queuesKey = "asynq:queues"

	// maxPending is how many tasks may wait for a worker before no more are sent. Workers that keep up leave none, and
	// each would do the same as the one before.
	maxPending = 10
)

// Options are what Run needs. All are required.
type Options struct {
	// Client enqueues. It must not have its own long time-outs: each call is given 2 s.
	Client tasks.Sender
	// Redis is the same Redis, for the set of queue names.
	Redis redis.Cmdable
	// Prefix begins the names of the queues, as for Client.
	Prefix string
	// SweepInterval is the time between two sweeps: whole milliseconds, 1 s at least (Asynq keeps finished tasks, and so
	// their IDs, for whole seconds).
	SweepInterval time.Duration
	// CleanTTL is how long clean entries stay in Redis.
	CleanTTL time.Duration
	Logger   *slog.Logger
	// Registerer takes the metrics.
	Registerer prometheus.Registerer
}

// Run sends a sweep, a purge and an eviction at once and then at each boundary of their intervals, until ctx is done; then it returns
// nil. Errors of Redis do not end it: they are counted, logged when they begin and when they end, and the next boundary
// tries again.
func Run(ctx context.Context, options Options) error {
	s, err := newScheduler(options)
	if err != nil {
		return err
	}
	for {
		s.tick(ctx, time.Now())
		if !waitFor(ctx, untilBoundary(time.Now(), options.SweepInterval)) {
			return nil
		}
	}
}

// untilBoundary is the time left of the interval that now falls into. It follows the wall clock: when that is set back,
// the next boundary is still at most one interval away.
func untilBoundary(now time.Time, interval time.Duration) time.Duration {
	next := time.UnixMilli((tasks.Bucket(now, interval) + 1) * interval.Milliseconds())
	return next.Sub(now)
}

// waitFor reports whether d has passed; false means that ctx was done first.
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

// scheduler is what one Run keeps between its ticks.
type scheduler struct {
	Options

	queues  []any
	metrics metrics

	purged   int64 // the last bucket whose purge was sent
	evicted  int64 // the last bucket whose eviction was sent
	failing  bool  // the last tick failed: its end is still to be logged
	skipping bool  // the last tick sent nothing because too much waits: likewise
}

func newScheduler(options Options) (*scheduler, error) {
	if options.SweepInterval < time.Second {
		return nil, fmt.Errorf("sweep interval %s: it takes a second at least", options.SweepInterval)
	}
	s := &scheduler{Options: options, metrics: newMetrics(options.Registerer), purged: -1, evicted: -1}
	for _, queue := range slices.Sorted(maps.Keys(tasks.Queues(options.Prefix))) {
		s.queues = append(s.queues, queue)
	}
	return s, nil
}

// tick does what is due at now, but sends nothing while no worker takes what was sent. The parts do not depend on each
// other: one that fails does not keep the others from being tried.
func (s *scheduler) tick(ctx context.Context, now time.Time) {
	errs := []error{s.look(ctx), s.publishQueues(ctx)}
	if s.skipping {
		s.metrics.skipped.Inc()
	} else {
		errs = append(errs, s.sweep(ctx, now), s.purge(ctx, now), s.evict(ctx, now))
	}
	if ctx.Err() != nil {
		return // the process is stopping: that is no news
	}
	s.report(errors.Join(errs...))
}

// look finds out whether too many periodic tasks wait for a worker. Without it they pile up by 720 an hour while none
// runs.
func (s *scheduler) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	// The length of Asynq's list of tasks that no worker has taken (base.PendingKey in its source) is one command of constant
	// time; Asynq's Inspector runs a script of a dozen and samples memory.
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

// purge sends one purge for each hour, and tries again at the next tick when it cannot.
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

// publishQueues adds the names of our queues to Asynq's set of them. Asynq's clients add a queue's name at their first
// task for it and never again, so a Redis that was emptied (FLUSHALL, a failover to a new machine) stays without the names for
// as long as those processes live. Workers do not need them, but Asynq's Inspector, and with it Asynqmon, the metrics of the
// queues and the redrive of dead letters, takes a queue that is not in the set for one that does not exist.
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
