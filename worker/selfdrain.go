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

// selfDrainsAtOnce is how many shards the worker drains on its own at once: as many as it has connections to Postgres
// beside those of its tasks, and enough for half of what it can do at its best.
const selfDrainsAtOnce = 2

// selfDrain drains what tasks should have drained long ago: when Asynq cannot run them because Redis is full, when its
// keys are lost, or when there is no scheduler. While sweeps work it counts the old keys once in an interval, finds none,
// and does nothing.
type selfDrain struct {
	cache    *cache.Cache
	store    Store
	flusher  *Flusher
	metrics  *metrics
	logger   *slog.Logger
	owner    string        // of the leases; no other process has the same
	interval time.Duration // between two looks, about
	age      time.Duration // of the keys that a sweep must have found already

	wasUp    bool        // Postgres was up at the last look
	stepping atomic.Bool // the last look had to step in
}

// leaseOwner names this worker, to tell its leases from those of every other, also of one that had its process ID before.
func leaseOwner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), crand.Text())
}

// run looks once in an interval until ctx ends. A look ends before the next begins.
func (s *selfDrain) run(ctx context.Context) {
	failing := false
	for waitFor(ctx, jittered(s.interval)) {
		err := s.look(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			s.logger.Warn("cannot look after overdue keys; trying again at each sweep interval", "error", err)
		}
		failing = err != nil
	}
}

// look drains the shards that have overdue keys.
func (s *selfDrain) look(ctx context.Context) error {
	if !s.store.Available() {
		s.wasUp = false
		return nil
	}
	shards, err := s.cache.Overdue(ctx, s.age)
	if err != nil {
		return err
	}
	if len(shards) == 0 {
		s.wasUp = s.store.Up()
		s.stepping.Store(false)
		return nil
	}
	if !s.ready() {
		// Old keys are no sign of lost tasks now. But if there are none at all, nobody else finds out that Postgres is back.
		if !s.store.Up() {
			_, err = s.flusher.Drain(ctx, shards[0], s.owner, 0)
		}
		if !s.store.Available() {
			return nil // the breaker logs that
		}
		return err
	}
	return s.drain(ctx, shards)
}

// ready reports that Postgres has been up for two looks, so that tasks have had their time with what an outage, or a time
// without any worker, has left.
func (s *selfDrain) ready() bool {
	before := s.wasUp
	s.wasUp = s.store.Up()
	return before && s.wasUp
}

// drain drains shards, some at once, and returns the first error. One that fails does not keep the others from being
// tried, unless it is Postgres that is away.
func (s *selfDrain) drain(ctx context.Context, shards []counter.Shard) error {
	var group errgroup.Group
	group.SetLimit(selfDrainsAtOnce)
	for _, shard := range shards {
		group.Go(func() error {
			if ctx.Err() != nil || !s.store.Available() {
				return ctx.Err()
			}
			drained, err := s.flusher.Drain(ctx, shard, s.owner, 0)
			if drained.Rows == 0 {
				return err // somebody else was faster: it is not known yet that tasks do not arrive
			}
			s.metrics.selfDrains.Inc()
			if !s.stepping.Swap(true) {
				s.logger.Info("tasks do not arrive: draining overdue keys without them. Is Redis full, or no scheduler running?",
					"overdue", s.age, "shards", len(shards))
			}
			return err
		})
	}
	return group.Wait()
}

// jittered is d, give or take a quarter, so that many workers do not look at the same moment.
func jittered(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2) //nolint:gosec // chance, not a secret
}
