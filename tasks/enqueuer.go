package tasks

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// hintRate is how many keys a second get a task of their own, and hintBurst how many at once. A task costs the
	// processor of the api and of Redis about as much as ten writes, so past this rate whole shards are drained instead, and
	// for a flush interval after it too: a drain takes the keys that have a task along with the others.
	hintRate, hintBurst = 100, 100

	// hintSenders is how many hints are on their way at once.
	hintSenders = 4

	// sendTimeout bounds one enqueue.
	sendTimeout = 2 * time.Second

	// drainTick is how often wanted drains are looked for. A shard's is sent once in a flush interval, at a moment of its own, so
	// that the shards are drained one after the other all the time, and not all at once and then none; by the wall clock, so
	// that several apis send theirs together, as one task. A shard that has a whole batch waits for half an interval at most.
	drainTick = 20 * time.Millisecond

	// drainTries bounds how often a drain is sent again whose ID was taken. A drain that has committed its epoch holds the ID
	// until Asynq has marked it done, and does not see what is written meanwhile. Without a further hint only the sweep would.
	drainTries = 3
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

	hints   chan hint
	limiter *rate.Limiter
	started time.Time
	busy    atomic.Int64   // until when there are too many keys for tasks of their own, ns since started
	drains  []atomic.Int32 // by shard: noDrain to drainAgain
	stop    chan struct{}
	abort   context.CancelFunc // ends what is being sent
	ended   sync.WaitGroup
	once    sync.Once

	shed    prometheus.Counter
	failed  prometheus.Counter
	failing atomic.Bool
}

const (
	noDrain    = 0
	drainSoon  = 1 // at the shard's next moment
	drainNow   = 2 // there is a whole batch already
	drainAgain = 3 // at the shard's next moment, because the ID was taken the last time
)

type hint struct {
	key   counter.Key
	shard counter.Shard

	headers map[string]string // of its trace; nil: none
}

// NewEnqueuer returns a running Enqueuer; Close ends it.
func NewEnqueuer(sender Sender, options EnqueuerOptions) *Enqueuer {
	ctx, abort := context.WithCancel(context.Background())
	e := &Enqueuer{
		sender:  sender,
		o:       options,
		started: time.Now(),
		hints:   make(chan hint, hintBurst),
		limiter: rate.NewLimiter(hintRate, hintBurst),
		drains:  make([]atomic.Int32, options.Shards),
		stop:    make(chan struct{}),
		abort:   abort,
		shed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_enqueue_shed_total",
			Help: "Newly dirty keys that got no task of their own, but a drain of their shard, because there were too many.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_enqueue_failed_total",
			Help: "Tasks that could not be enqueued. The sweep finds their keys.",
		}),
	}
	options.Registerer.MustRegister(e.shed, e.failed)
	for range hintSenders {
		e.ended.Go(func() { e.sendHints(ctx) })
	}
	e.ended.Go(func() { e.sendDrains(ctx) })
	return e
}

// Offer says that key has just become dirty, as one of backlog dirty keys of its shard. While there are few, each gets a
// task of its own, so that it can be seen in the queue; past hintRate, and past one batch, its shard gets a drain.
func (e *Enqueuer) Offer(key counter.Key, shard counter.Shard, backlog int64) {
	e.offer(hint{key: key, shard: shard}, backlog)
}

func (e *Enqueuer) offer(h hint, backlog int64) {
	if backlog > int64(e.o.FlushBatch) {
		e.drains[h.shard].Store(drainNow)
		return
	}
	now := time.Now()
	allowed := e.limiter.AllowN(now, 1)
	if !allowed {
		e.busy.Store(int64(now.Sub(e.started) + e.o.FlushInterval))
	}
	if allowed && int64(now.Sub(e.started)) >= e.busy.Load() {
		select {
		case e.hints <- h:
			return
		default: // Redis is slow
		}
	}
	e.shed.Inc()
	if !e.drains[h.shard].CompareAndSwap(noDrain, drainSoon) {
		e.drains[h.shard].CompareAndSwap(drainAgain, drainSoon)
	}
}

// Close sends what is queued, for as long as ctx allows, and ends the Enqueuer. When ctx ends, so do the sends under way: a
// Redis that does not answer holds nobody up for longer. What is offered afterwards is dropped.
func (e *Enqueuer) Close(ctx context.Context) {
	e.once.Do(func() {
		defer e.abort()
		defer context.AfterFunc(ctx, e.abort)()
		ticker := time.NewTicker(drainTick)
		defer ticker.Stop()
		for len(e.hints) > 0 && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
		close(e.stop)
		e.ended.Wait()
	})
}

func (e *Enqueuer) sendHints(ctx context.Context) {
	for {
		select {
		case h := <-e.hints:
			e.send(ctx, flushWith(h.headers, h.key, h.shard))
		case <-e.stop:
			return
		}
	}
}

func (e *Enqueuer) sendDrains(ctx context.Context) {
	ticker := time.NewTicker(drainTick)
	defer ticker.Stop()
	states := make([]drainState, len(e.drains))
	before := time.Now()
	for {
		select {
		case now := <-ticker.C:
			for i := range e.drains {
				wanted := e.drains[i].Load()
				early := wanted == drainNow && now.Sub(states[i].sent) >= e.o.FlushInterval/2
				if early || (wanted != noDrain && e.momentBetween(i, before, now)) {
					states[i].sent = now
					e.sendWanted(ctx, i, wanted, &states[i])
				}
			}
			before = now
		case <-e.stop:
			for i := range e.drains {
				if e.drains[i].Swap(noDrain) == noDrain {
					continue
				}
				if _, sent := e.sendDrain(ctx, i); !sent {
					return // Redis is away, or the time is up; the sweep will have to do
				}
			}
			return
		}
	}
}

// drainState is what sendDrains knows of a shard.
type drainState struct {
	sent  time.Time // when a drain was, the last time
	tries int       // how often it has been sent again
}

// sendWanted sends a drain that is wanted, and wants it again if its ID was taken.
func (e *Enqueuer) sendWanted(ctx context.Context, shard int, wanted int32, state *drainState) {
	e.drains[shard].Store(noDrain)
	if wanted != drainAgain {
		state.tries = 0
	}
	if conflict, _ := e.sendDrain(ctx, shard); conflict && state.tries < drainTries {
		state.tries++
		e.drains[shard].CompareAndSwap(noDrain, drainAgain)
	}
}

// momentBetween reports whether the shard's moment in a flush interval has come since before.
func (e *Enqueuer) momentBetween(shard int, before, now time.Time) bool {
	interval := int64(e.o.FlushInterval)
	offset := interval * int64(shard) / int64(len(e.drains))
	return (now.UnixNano()-offset)/interval != (before.UnixNano()-offset)/interval
}

func (e *Enqueuer) sendDrain(ctx context.Context, shard int) (conflict, sent bool) {
	return e.send(ctx, Drain(counter.Shard(shard), 0))
}

// send enqueues task within sendTimeout. It reports whether a task of its ID was already there, and whether Redis took either. A
// row of failures is logged once, at its start.
func (e *Enqueuer) send(ctx context.Context, task *asynq.Task) (conflict, sent bool) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	conflict, err := send(ctx, e.sender, task)
	if err == nil {
		e.failing.Store(false)
		return conflict, true
	}
	e.failed.Inc()
	if !e.failing.Swap(true) {
		e.o.Logger.Warn("cannot enqueue tasks; the sweep will find their keys", "error", err)
	}
	return false, false
}
