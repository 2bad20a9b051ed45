package worker

import (
	"context"
	"errors"
	"log/slog"
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

	// shortOfMemory is the part of maxmemory from which on Redis is short of it.
	shortOfMemory = 0.85

	// urgentIdle is how long an entry must have been idle to be evicted while Redis is short of memory but not full.
	urgentIdle = time.Minute

	// fruitlessPause is how long a worker leaves a full Redis alone in which it found nothing to evict.
	fruitlessPause = 10 * time.Second
)

// evictor removes entries that are clean and idle.
type evictor struct {
	cache    *cache.Cache
	metrics  *metrics
	logger   *slog.Logger
	cleanTTL time.Duration
}

// idle removes what has been idle for CLEAN_TTL.
func (e *evictor) idle(ctx context.Context) error {
	_, err := e.evict(ctx, cache.Eviction{Idle: e.cleanTTL}, evictRate)
	return err
}

func (e *evictor) evict(ctx context.Context, what cache.Eviction, perSecond rate.Limit) (int64, error) {
	limiter := rate.NewLimiter(perSecond, cache.ScanPage)
	what.Pace = limiter.WaitN
	removed, err := e.cache.EvictIdle(ctx, what)
	e.metrics.evicted.Add(float64(removed))
	return removed, err
}

// watch looks at Redis's memory once in a while until ctx ends, and makes room when there is little.
func (e *evictor) watch(ctx context.Context) {
	for waitFor(ctx, jittered(memoryCheck)) {
		removed, short, err := e.makeRoom(ctx)
		switch {
		case err != nil:
			e.logger.DebugContext(ctx, "cannot look after redis's memory", "error", err)
		case short && removed == 0:
			waitFor(ctx, fruitlessPause)
		case short:
			e.logger.InfoContext(ctx, "redis is short of memory: removed entries that postgres has", "entries", removed)
		}
	}
}

// makeRoom evicts while Redis is short of memory: what has not been written for a minute, and if it is full, all that is clean.
func (e *evictor) makeRoom(ctx context.Context) (removed int64, short bool, err error) {
	used, err := e.cache.MemoryUse(ctx)
	if err != nil || used < shortOfMemory {
		return 0, false, err
	}
	what := cache.Eviction{Idle: min(urgentIdle, e.cleanTTL), Urgent: true}
	removed, err = e.evict(ctx, what, urgentRate)
	if err != nil {
		return removed, true, err
	}
	if used, err = e.cache.MemoryUse(ctx); err != nil || used < 1 {
		return removed, true, err
	}
	what.Idle = 0
	more, err := e.evict(ctx, what, urgentRate)
	return removed + more, true, errors.Join(err, ctx.Err())
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
