package cache

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxLaneQueued is maxQueued for one lane.
const maxLaneQueued = maxQueued / 4

// lanes are a Writer for a cluster: one Writer for each master, so that a hung master delays only its own shards.
// Requests of two callers may overtake each other when a shard moves to another master; those of one caller do not, since it waits.
type lanes struct {
	cache   *Cache
	cluster *redis.ClusterClient
	make    func(limit int) *Writer // not running

	mu       sync.RWMutex
	byMaster map[*redis.Client]*Writer
	closed   bool
	closing  sync.WaitGroup // lanes of former masters
	tracer   trace.Tracer
}

func newLanes(c *Cache, cluster *redis.ClusterClient, lane func(limit int) *Writer) *lanes {
	return &lanes{cache: c, cluster: cluster, make: lane, byMaster: make(map[*redis.Client]*Writer)}
}

// part is the part of a request that goes through one lane.
type part struct {
	writes  []Write
	places  []int // of its outcomes
	request *request
}

// do is Writer.DoUntil.
func (l *lanes) do(ctx context.Context, writes []Write, until time.Time) []Outcome {
	parts, err := l.split(ctx, writes)
	if err != nil {
		return refuse(make([]Outcome, len(writes)),
			notNow(counter.CodeCacheUnavailable, err, "Redis's masters are not known; the operation was not applied"))
	}
	for lane, p := range parts {
		p.request = lane.enqueue(ctx, p.writes, until)
	}
	outcomes := make([]Outcome, len(writes))
	for lane, p := range parts {
		for i, o := range lane.await(ctx, p.request) {
			outcomes[p.places[i]] = o
		}
	}
	return outcomes
}

// split sorts the writes by the lanes of their shards.
func (l *lanes) split(ctx context.Context, writes []Write) (map[*Writer]*part, error) {
	parts := make(map[*Writer]*part, 1)
	for i := range writes {
		lane, err := l.lane(ctx, l.cache.prefixes[l.cache.Shard(writes[i].Key)])
		if err != nil {
			return nil, err
		}
		p := parts[lane]
		if p == nil {
			p = &part{}
			parts[lane] = p
		}
		p.writes, p.places = append(p.writes, writes[i]), append(p.places, i)
	}
	return parts, nil
}

// lane returns the lane of the master that has a shard, whose keys begin with name. It makes the lane if there is none.
func (l *lanes) lane(ctx context.Context, name string) (*Writer, error) {
	master, err := l.cluster.MasterForKey(ctx, name)
	if err != nil {
		return nil, err
	}
	l.mu.RLock()
	lane := l.byMaster[master]
	l.mu.RUnlock()
	if lane != nil {
		return lane, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if lane = l.byMaster[master]; lane != nil {
		return lane, nil
	}
	if l.closed {
		return nil, redis.ErrClosed
	}
	l.retire(ctx)
	lane = l.make(maxLaneQueued)
	lane.tracer = l.tracer
	lane.start()
	l.byMaster[master] = lane
	return lane, nil
}

// retire ends the lanes of former masters, in the background: one may be in a call that hangs. The lock is held.
func (l *lanes) retire(ctx context.Context) {
	masters := make(map[*redis.Client]bool)
	for _, name := range l.cache.prefixes {
		if master, err := l.cluster.MasterForKey(ctx, name); err == nil {
			masters[master] = true
		}
	}
	for master, lane := range l.byMaster {
		if !masters[master] {
			delete(l.byMaster, master)
			l.closing.Go(lane.Close)
		}
	}
}

// close is Writer.Close.
func (l *lanes) close() {
	l.mu.Lock()
	l.closed = true
	for _, lane := range l.byMaster {
		l.closing.Go(lane.Close)
	}
	l.mu.Unlock()
	l.closing.Wait()
}
