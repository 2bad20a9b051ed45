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

// Limit says whether further keys may become dirty, by a count that it keeps in the background.
type Limit struct {
	cache *cache.Cache
	most  int64
	dirty atomic.Int64
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
func (l *Limit) MayDirty() bool { return l.dirty.Load() < l.most }

// Close ends the counting.
func (l *Limit) Close() {
	l.stop()
	l.ended.Wait()
}

func (l *Limit) run(ctx context.Context) {
	ticker := time.NewTicker(countInterval)
	defer ticker.Stop()
	for {
		// While Redis cannot be asked, no write succeeds either: the last count will do.
		if n, err := l.cache.DirtyCount(ctx); err == nil {
			l.dirty.Store(n)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
