package worker

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// selfDrainsAtOnce bounds the shards that the worker drains on its own at once. The worker has this many connections to Postgres besides
// its tasks' connections. They are enough for half of its best throughput.
const selfDrainsAtOnce = 2

// failureMemory is how long after a failure of Redis the worker looks for waiting shards at each flush interval. A failover loses tasks,
// and Asynq starts those that were running at its beginning only half a minute later.
const failureMemory = 10 * time.Second

// selfDrain drains shards that tasks should have drained long ago: when Asynq cannot run tasks because Redis is full, when Asynq's keys are
// lost, or when no scheduler runs. While sweeps work it finds no such shard. After a failure of Redis it does not wait for sweeps.
type selfDrain struct {
	cache    *cache.Cache
	store    Store
	flusher  *Flusher
	metrics  *metrics
	logger   *slog.Logger
	owner    string        // of the leases; unique
	interval time.Duration // between two checks, about
	age      time.Duration // a working sweep would have found older epochs
	flush    time.Duration // the flush interval

	wasUp    bool        // Postgres was up at the last check
	stepping atomic.Bool // the last check has drained shards
}

// leaseOwner returns a unique name of this worker, even if an earlier worker had the same process ID.
func leaseOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), crand.Text())
}

// run checks once in an interval, and once in a flush interval after a failure of Redis, until ctx ends. A check ends before the next
// begins.
func (s *selfDrain) run(ctx context.Context) {
	failing := false
	next := time.Now().Add(jittered(s.interval))
	for waitFor(ctx, jittered(min(s.flush, s.interval))) {
		age, after := s.age, s.failedLately()
		if after {
			age = s.flush
		} else if time.Now().Before(next) {
			continue
		}
		next = time.Now().Add(jittered(s.interval))
		err := s.check(ctx, age)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			s.logger.Warn("cannot check for overdue shards; trying again at each sweep interval", "error", err)
		}
		failing = err != nil
	}
}

// failedLately reports whether Redis failed within failureMemory.
func (s *selfDrain) failedLately() bool {
	ago, failed := s.cache.SinceFailure()
	return failed && ago < failureMemory
}

// check drains the shards that are older than age.
func (s *selfDrain) check(ctx context.Context, age time.Duration) error {
	if !s.store.Available() {
		s.wasUp = false
		return nil
	}
	shards, err := s.cache.Overdue(ctx, age)
	if err != nil {
		return err
	}
	if len(shards) == 0 {
		s.wasUp = s.store.Up()
		s.stepping.Store(false)
		return nil
	}
	if !s.ready() {
		// Overdue shards may be due to an outage. But without any task, nothing else finds out that Postgres is back.
		if !s.store.Up() {
			_, err = s.flusher.Drain(ctx, shards[0], s.owner, 0)
		}
		if !s.store.Available() {
			return nil // the breaker logs that
		}
		return err
	}
	return s.drain(ctx, shards, age)
}

// ready reports whether Postgres was up at two checks in a row, so that tasks have had time to drain what an outage has left.
func (s *selfDrain) ready() bool {
	before := s.wasUp
	s.wasUp = s.store.Up()
	return before && s.wasUp
}

// drain drains shards, a few at once, and returns the first error. After a failure it still tries the others, unless Postgres is away.
func (s *selfDrain) drain(ctx context.Context, shards []counter.Shard, age time.Duration) error {
	var group errgroup.Group
	group.SetLimit(selfDrainsAtOnce)
	for _, shard := range shards {
		group.Go(func() error {
			if ctx.Err() != nil || !s.store.Available() {
				return ctx.Err()
			}
			drained, err := s.flusher.Drain(ctx, shard, s.owner, 0)
			if drained.Rows == 0 {
				return err // another drain was faster: tasks may still arrive
			}
			s.metrics.selfDrains.Inc()
			if !s.stepping.Swap(true) {
				s.explain(age, len(shards))
			}
			return err
		})
	}
	return group.Wait()
}

// explain logs why the worker drains shards without tasks.
func (s *selfDrain) explain(age time.Duration, shards int) {
	if age < s.age {
		s.logger.Info("redis has failed: draining waiting shards without tasks, which may be lost", "shards", shards)
		return
	}
	s.logger.Info("tasks do not arrive: draining overdue shards without them. Is Redis full, or no scheduler running?",
		"overdue", age, "shards", shards)
}

// jittered returns d plus or minus a quarter, so that many workers do not check at the same moment.
func jittered(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2) //nolint:gosec // jitter needs no secret
}
