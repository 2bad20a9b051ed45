package dashboard

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

const (
	// maxDeadRead bounds the dead letters of one count: 40 calls to Redis.
	maxDeadRead = 20_000

	// deadEvery is the least time between two counts, and deadTimeout bounds one.
	deadEvery   = 5 * time.Second
	deadTimeout = 2 * time.Second
)

// mappedDead counts the dead letters of each mapping while somebody looks at them. Redis does not index them, so it reads them all.
type mappedDead struct {
	cache    *cache.Cache
	mappings *mapping.Mappings
	log      *slog.Logger
	wanted   chan struct{} // has an element if a viewer wants a newer count

	mu   sync.Mutex
	last deadCount
	next chan struct{} // closed when there is a newer count
}

// deadCount is one count. The zero value is that of a process that has not counted yet.
type deadCount struct {
	at      time.Time
	letters map[string]int64 // by the name of the mapping
	partial bool             // there may be more
}

func newMappedDead(options Options) *mappedDead {
	return &mappedDead{
		cache: options.Cache, mappings: options.Mappings, log: options.Logger,
		wanted: make(chan struct{}, 1), next: make(chan struct{}),
	}
}

// latest returns the last count without blocking, and a channel that is closed when there is a newer one. If the last one is old, it
// requests another.
func (d *mappedDead) latest() (deadCount, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.last.at) > deadEvery {
		select {
		case d.wanted <- struct{}{}:
		default:
		}
	}
	return d.last, d.next
}

// fresh requests a count if the last one is old, and waits for it until ctx is done.
func (d *mappedDead) fresh(ctx context.Context) {
	last, next := d.latest()
	if time.Since(last.at) <= deadEvery {
		return
	}
	select {
	case <-next:
	case <-ctx.Done():
	}
}

// run counts when it is wanted, until ctx is done.
func (d *mappedDead) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.wanted:
		}
		counted := d.count(ctx)
		d.mu.Lock()
		d.last = counted
		close(d.next)
		d.next = make(chan struct{})
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(deadEvery):
		}
	}
}

var errEnough = errors.New("enough dead letters were read")

// count reads the dead letters of all shards. The result is partial if there are too many, or a shard does not answer.
func (d *mappedDead) count(ctx context.Context) deadCount {
	ctx, cancel := context.WithTimeout(ctx, deadTimeout)
	defer cancel()
	counted, read := deadCount{letters: make(map[string]int64)}, 0
	for shard := range d.cache.Shards() {
		err := d.cache.EachDead(ctx, counter.Shard(shard), func(notes []cache.Note) error {
			for _, note := range notes {
				if m, _ := d.mappings.Match(note.Key); m != nil {
					counted.letters[m.Name]++
				}
			}
			if read += len(notes); read >= maxDeadRead {
				return errEnough
			}
			return nil
		})
		if err != nil {
			counted.partial = true
			if !errors.Is(err, errEnough) {
				d.log.Warn("the dead letters of a shard could not be counted by mapping", "shard", counter.Shard(shard), "error", err)
			}
		}
		if errors.Is(err, errEnough) || ctx.Err() != nil {
			break
		}
	}
	counted.at = time.Now()
	return counted
}
