package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/cache"
)

const (
	// evictRate is the number of entries a second that an eviction checks: about 3 % of Redis's time.
	evictRate = 20_000

	// urgentRate is the same while Redis is short of memory: about a third of Redis's time.
	urgentRate = 200_000

	// memoryCheck is how often a worker checks Redis's memory.
	memoryCheck = time.Second

	// Redis is short of memory if it uses more than shortOfMemory of its maxmemory. Above fullMemory it refuses calls, because their
	// buffers count, too.
	shortOfMemory = 0.85
	fullMemory    = 0.97

	// urgentIdle is how long an entry must be idle to be evicted while Redis is short of memory but not full.
	urgentIdle = time.Minute

	// fruitlessPause is the pause after an urgent eviction that has found nothing.
	fruitlessPause = 10 * time.Second

	// enoughCheck is the number of entries after which an eviction from a full Redis checks whether it may end.
	enoughCheck = 10 * cache.ScanPage
)

// evictor removes clean entries that are idle.
type evictor struct {
	cache    *cache.Cache
	metrics  *metrics
	logger   *slog.Logger
	cleanTTL time.Duration
	passing  atomic.Bool // a pass over all entries is in progress

	idleRest, cleanRest time.Time // ends of the pauses after fruitless evictions of idle and of clean entries
}

// idle removes clean entries that have been idle for CLEAN_TTL. It does nothing while another pass runs: passes that take longer than the
// scheduler's interval would use up the worker's concurrency.
func (e *evictor) idle(ctx context.Context) error {
	if !e.passing.CompareAndSwap(false, true) {
		return nil
	}
	defer e.passing.Store(false)
	_, err := e.evict(ctx, cache.Eviction{Idle: e.cleanTTL, Pace: paced(evictRate)})
	return err
}

// paced returns the Pace of an eviction.
func paced(perSecond rate.Limit) func(ctx context.Context, keys int) error {
	return rate.NewLimiter(perSecond, cache.ScanPage).WaitN
}

func (e *evictor) evict(ctx context.Context, what cache.Eviction) (int64, error) {
	removed, err := e.cache.EvictIdle(ctx, what)
	e.metrics.evicted.Add(float64(removed))
	return removed, err
}

// watch checks Redis's memory once a second until ctx ends, and makes room if it is short.
func (e *evictor) watch(ctx context.Context) {
	for waitFor(ctx, jittered(memoryCheck)) {
		removed, err := e.makeRoom(ctx)
		if err != nil {
			e.logger.DebugContext(ctx, "cannot check redis's memory", "error", err)
		}
		if removed > 0 {
			e.logger.InfoContext(ctx, "redis is short of memory: removed entries that postgres has", "entries", removed)
		}
	}
}

// makeRoom evicts clean entries while Redis is short of memory: first those that have not been written for a minute, then, if Redis is
// full, any clean entries until it is no longer short.
func (e *evictor) makeRoom(ctx context.Context) (removed int64, err error) {
	used, err := e.cache.MemoryUse(ctx)
	if err != nil || used < shortOfMemory {
		return 0, err
	}
	if now := time.Now(); now.After(e.idleRest) {
		removed, err = e.evict(ctx, cache.Eviction{Idle: min(urgentIdle, e.cleanTTL), Urgent: true, Pace: paced(urgentRate)})
		if err != nil {
			return removed, err
		}
		if removed == 0 {
			e.idleRest = now.Add(fruitlessPause)
		} else if used, err = e.cache.MemoryUse(ctx); err != nil {
			return removed, err
		}
	}
	if used < fullMemory {
		return removed, nil
	}
	more, err := e.evictClean(ctx)
	return removed + more, err
}

var errEnough = errors.New("redis is no longer short of memory")

// evictClean evicts clean entries until Redis is no longer short of memory.
func (e *evictor) evictClean(ctx context.Context) (removed int64, err error) {
	now := time.Now()
	if now.Before(e.cleanRest) {
		return 0, nil
	}
	wait, seen := paced(urgentRate), 0
	removed, err = e.evict(ctx, cache.Eviction{Urgent: true, Pace: func(ctx context.Context, keys int) error {
		if seen += keys; seen >= enoughCheck {
			seen = 0
			if used, err := e.cache.MemoryUse(ctx); err == nil && used < shortOfMemory {
				return errEnough
			}
		}
		return wait(ctx, keys)
	}})
	switch {
	case errors.Is(err, errEnough):
		return removed, nil
	case err == nil && removed == 0:
		e.cleanRest = now.Add(fruitlessPause)
	}
	return removed, err
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
