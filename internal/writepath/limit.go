package writepath

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// retryAfter is the Retry-After of reads that need Postgres while it is away.
const retryAfter = time.Second

// countInterval bounds the age of the count of dirty keys that backpressure uses.
const countInterval = 250 * time.Millisecond

// Limit decides whether more keys may become dirty. It counts the dirty keys in the background while it is in use.
type Limit struct {
	cache *cache.Cache
	most  int64
	dirty atomic.Int64
	asked atomic.Bool // MayDirty was called since the last count
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// NewLimit returns a running Limit of most dirty keys; Close ends it.
func NewLimit(c *cache.Cache, most int64) *Limit {
	ctx, stop := context.WithCancel(context.Background())
	l := &Limit{cache: c, most: most, stop: stop}
	l.ended.Go(func() { l.run(ctx) })
	return l
}

// MayDirty reports whether there are fewer dirty keys than the limit. It does not block.
func (l *Limit) MayDirty() bool {
	if !l.asked.Load() { // all writes share it, and a load is cheaper than a store
		l.asked.Store(true)
	}
	return l.dirty.Load() < l.most
}

// Close ends the counting.
func (l *Limit) Close() {
	l.stop()
	l.ended.Wait()
}

func (l *Limit) run(ctx context.Context) {
	ticker := time.NewTicker(countInterval)
	defer ticker.Stop()
	for known := false; ; {
		// It keeps counting near the limit, so that it does not refuse the first write after a backlog.
		if l.asked.Swap(false) || !known || l.dirty.Load() >= l.most/2 {
			// A shard that does not answer counts as 0, so that the rest of a cluster still works. If none answers, no write succeeds
			// either, and the last count will do.
			shards, err := l.cache.Backlogs(ctx)
			if known = err == nil; known {
				sum := shards.Sum()
				l.dirty.Store(sum.Dirty + sum.Dead)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
