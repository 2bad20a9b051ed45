package writepath

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// defaultBaseTimeout bounds the one read of Postgres that a request may wait for: the value of a cold key.
	defaultBaseTimeout = 100 * time.Millisecond

	// closeTimeout bounds the sending of the last hints. Sweeps find the keys of dropped hints.
	closeTimeout = 2 * time.Second
)

// Parts are the parts of a write path. Only Cache is required, and either Store or Bases.
type Parts struct {
	Cache *cache.Cache
	// MaxDirty is the number of dirty keys past which no further key may become dirty. 0: no bound.
	MaxDirty int64

	// Store reads the rows of cold keys. Concurrent reads are shared. BaseTimeout bounds them; 0: 100 ms.
	Store       store.Reader
	BaseTimeout time.Duration
	// Bases, if set, replaces Store.
	Bases Bases

	// Sender sends tasks for keys that have just become dirty, see Enqueuer. Nil: none, and sweeps find the keys.
	Sender   tasks.Sender
	Enqueuer tasks.EnqueuerOptions
	// Hints, if set, replaces Sender.
	Hints Hints

	// Durability is that of writes without one. AsConfigured: InRedis.
	Durability Durability
	// WaitReplicas is the number of replicas that must have a write with OnReplicas. 0: no write may be OnReplicas or OnDisk.
	WaitReplicas int
	// Tracing makes spans. Nil: none.
	Tracing trace.TracerProvider
}

// Open returns a running write path. Close it after the last Do.
func Open(p Parts) *Service {
	s := &Service{cache: p.Cache, bases: p.Bases, hints: p.Hints, durability: cmp.Or(p.Durability, InRedis)}
	mayDirty := func() bool { return true }
	if p.MaxDirty > 0 {
		limit := NewLimit(p.Cache, p.MaxDirty)
		s.onClose(limit.Close)
		mayDirty = limit.MayDirty
	}
	s.writer = p.Cache.NewWriter(mayDirty)
	s.onClose(s.writer.Close)
	if p.Tracing != nil {
		s.writer.WithTracing(p.Tracing)
	}
	if p.WaitReplicas > 0 {
		s.openDurable(&p, mayDirty)
	}
	if s.bases == nil {
		loader := store.NewLoader(p.Store, cmp.Or(p.BaseTimeout, defaultBaseTimeout))
		s.onClose(loader.Close)
		s.bases = loader
	}
	if s.hints == nil {
		s.openHints(p)
	}
	s.waiters = newWaiters(s.cache, s.bases, s.hints)
	s.onClose(s.StopWaiting)
	return s
}

func (s *Service) openHints(p Parts) {
	if p.Sender == nil {
		s.hints = noHints{}
		return
	}
	enqueuer := tasks.NewEnqueuer(p.Sender, p.Enqueuer)
	s.onClose(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		enqueuer.Close(ctx)
	})
	s.hints = enqueuer
}

func (s *Service) onClose(end func()) { s.ends = append(s.ends, end) }

// Close ends all waits for Postgres, sends the last hints for up to 2 s, and stops the goroutines of the write path.
func (s *Service) Close() {
	for _, end := range slices.Backward(s.ends) {
		end()
	}
}

// noHints drops the hints: sweeps find the keys.
type noHints struct{}

// Offer implements Hints.
func (noHints) Offer(context.Context, counter.Key, counter.Shard, int64) {}
