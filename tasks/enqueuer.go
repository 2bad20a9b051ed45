package tasks

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// hintQueue is how many hints may wait to be sent. One takes a round trip of Redis, so these are a second or two.
	hintQueue = 10_000

	// hintSenders is how many hints are on their way at once.
	hintSenders = 4

	// sendTimeout bounds one enqueue.
	sendTimeout = 2 * time.Second

	// drainTick is how often wanted drains are looked for. They are sent at most twice in a flush interval: a second
	// one would only find the first.
	drainTick = 100 * time.Millisecond
)

// EnqueuerOptions are the settings of an Enqueuer.
type EnqueuerOptions struct {
	Shards        int
	FlushBatch    int
	FlushInterval time.Duration
	Logger        *slog.Logger
	Registerer    prometheus.Registerer
}

// Enqueuer tells the workers of newly dirty keys, in the background. It never blocks and never fails: a hint that cannot
// be sent is dropped and counted, and the sweep finds the key.
type Enqueuer struct {
	sender Sender
	o      EnqueuerOptions

	hints  chan hint
	drains []atomic.Bool // by shard: a drain is wanted
	stop   chan struct{}
	ended  sync.WaitGroup
	once   sync.Once

	shed    prometheus.Counter
	failed  prometheus.Counter
	failing atomic.Bool
}

type hint struct {
	key   counter.Key
	shard counter.Shard
}

// NewEnqueuer returns a running Enqueuer; Close ends it.
func NewEnqueuer(sender Sender, options EnqueuerOptions) *Enqueuer {
	e := &Enqueuer{
		sender: sender,
		o:      options,
		hints:  make(chan hint, hintQueue),
		drains: make([]atomic.Bool, options.Shards),
		stop:   make(chan struct{}),
		shed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_enqueue_shed_total",
			Help: "Newly dirty keys that were not enqueued one by one because the queue for it was full.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_enqueue_failed_total",
			Help: "Tasks that could not be enqueued. The sweep finds their keys.",
		}),
	}
	options.Registerer.MustRegister(e.shed, e.failed)
	for range hintSenders {
		e.ended.Go(e.sendHints)
	}
	e.ended.Go(e.sendDrains)
	return e
}

// Offer says that key has just become dirty, as one of backlog dirty keys of its shard. While the backlog is small each
// key gets a task of its own, so that it can be seen in the queue; past one batch the shard gets a drain.
func (e *Enqueuer) Offer(key counter.Key, shard counter.Shard, backlog int64) {
	if backlog <= int64(e.o.FlushBatch) {
		select {
		case e.hints <- hint{key, shard}:
			return
		default:
			e.shed.Inc()
		}
	}
	e.drains[shard].Store(true)
}

// Close sends what is queued, for as long as ctx allows, and ends the Enqueuer. What is offered afterwards is dropped.
func (e *Enqueuer) Close(ctx context.Context) {
	e.once.Do(func() {
		defer e.ended.Wait()
		ticker := time.NewTicker(drainTick)
		defer ticker.Stop()
		for len(e.hints) > 0 && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
		close(e.stop)
	})
}

func (e *Enqueuer) sendHints() {
	for {
		select {
		case h := <-e.hints:
			e.send(func(ctx context.Context) error { return Send(ctx, e.sender, Flush(h.key, h.shard)) })
		case <-e.stop:
			return
		}
	}
}

func (e *Enqueuer) sendDrains() {
	ticker := time.NewTicker(drainTick)
	defer ticker.Stop()
	sent := make([]time.Time, len(e.drains))
	for {
		select {
		case now := <-ticker.C:
			for i := range e.drains {
				if now.Sub(sent[i]) >= e.o.FlushInterval/2 && e.drains[i].Swap(false) {
					sent[i] = now
					e.sendDrain(i)
				}
			}
		case <-e.stop:
			for i := range e.drains {
				if e.drains[i].Swap(false) && !e.sendDrain(i) {
					return // Redis is away; the sweep will have to do
				}
			}
			return
		}
	}
}

func (e *Enqueuer) sendDrain(shard int) bool {
	return e.send(func(ctx context.Context) error { return Send(ctx, e.sender, Drain(counter.Shard(shard))) })
}

// send runs one enqueue within its bound and reports its success. A row of failures is logged once, at its start.
func (e *Enqueuer) send(enqueue func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	err := enqueue(ctx)
	if err == nil {
		e.failing.Store(false)
		return true
	}
	e.failed.Inc()
	if !e.failing.Swap(true) {
		e.o.Logger.Warn("cannot enqueue tasks; the sweep will find their keys", "error", err)
	}
	return false
}
