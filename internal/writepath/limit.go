package writepath

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// retryAfter is the advice to clients whose read needs a Postgres that is away.
const retryAfter = time.Second

// countInterval is how old the count of dirty keys may be that backpressure goes by.
const countInterval = 250 * time.Millisecond

// Limit says whether further keys may become dirty, by a count that it keeps in the background while somebody asks.
type Limit struct {
	cache *cache.Cache
	most  int64
	dirty atomic.Int64
	asked atomic.Bool // since the last count
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

// MayDirty reports that there are fewer dirty keys than the limit. It does not block.
func (l *Limit) MayDirty() bool {
	if !l.asked.Load() { // all writes share it: a store each time would cost more
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
		// A count that is near the limit is kept up to date, so that the first write after a backlog has gone is not refused.
		if l.asked.Swap(false) || !known || l.dirty.Load() >= l.most/2 {
			// While Redis cannot be asked, no write succeeds either: the last count will do.
			n, err := l.cache.DirtyCount(ctx)
			if known = err == nil; known {
				l.dirty.Store(n)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
