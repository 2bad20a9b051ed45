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
	// evictRate is how many entries a second an eviction goes through: about 3 % of Redis's time.
	evictRate = 20_000

	// urgentRate is the same while Redis is short of memory: about a third of it.
	urgentRate = 200_000

	// memoryCheck is how often a worker looks at Redis's memory.
	memoryCheck = time.Second

	// shortOfMemory is the part of maxmemory from which on Redis is short of it, and fullMemory from which on it refuses calls,
	// whose own buffers count, too.
	shortOfMemory = 0.85
	fullMemory    = 0.97

	// urgentIdle is how long an entry must have been idle to be evicted while Redis is short of memory but not full.
	urgentIdle = time.Minute

	// fruitlessPause is how long a worker looks for nothing more of what it found nothing of.
	fruitlessPause = 10 * time.Second

	// enoughCheck is after how many entries an eviction from a full Redis finds out whether it may end.
	enoughCheck = 10 * cache.ScanPage
)

// evictor removes entries that are clean and idle.
type evictor struct {
	cache    *cache.Cache
	metrics  *metrics
	logger   *slog.Logger
	cleanTTL time.Duration
	passing  atomic.Bool // a pass over all entries is under way

	idleRest, cleanRest time.Time // until when there is no point in looking for idle entries, and for clean ones
}

// idle removes what has been idle for CLEAN_TTL. It does nothing while it is running already: where a pass takes longer than the
// scheduler's interval, they would take up every place that the worker has for tasks.
func (e *evictor) idle(ctx context.Context) error {
	if !e.passing.CompareAndSwap(false, true) {
		return nil
	}
	defer e.passing.Store(false)
	_, err := e.evict(ctx, cache.Eviction{Idle: e.cleanTTL, Pace: paced(evictRate)})
	return err
}

// paced is the Pace of an eviction.
func paced(perSecond rate.Limit) func(ctx context.Context, keys int) error {
	return rate.NewLimiter(perSecond, cache.ScanPage).WaitN
}

func (e *evictor) evict(ctx context.Context, what cache.Eviction) (int64, error) {
	removed, err := e.cache.EvictIdle(ctx, what)
	e.metrics.evicted.Add(float64(removed))
	return removed, err
}

// watch looks at Redis's memory once in a while until ctx ends, and makes room when there is little.
func (e *evictor) watch(ctx context.Context) {
	for waitFor(ctx, jittered(memoryCheck)) {
		removed, err := e.makeRoom(ctx)
		if err != nil {
			e.logger.DebugContext(ctx, "cannot look after redis's memory", "error", err)
		}
		if removed > 0 {
			e.logger.InfoContext(ctx, "redis is short of memory: removed entries that postgres has", "entries", removed)
		}
	}
}

// makeRoom evicts while Redis is short of memory: what has not been written for a minute, and if it is full, what is clean, until
// it is not short any more.
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

var errEnough = errors.New("redis is not short of memory any more")

// evictClean evicts clean entries until Redis is not short of memory any more.
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
