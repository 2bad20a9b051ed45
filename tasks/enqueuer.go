package tasks

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// hintRate bounds the keys per second that get their own task, and hintBurst the keys at once. A task costs the api and Redis as much
	// CPU as about ten writes. So above this rate, and for a flush interval afterwards, the shards get drains instead.
	hintRate, hintBurst = 100, 100

	// hintSenders is the number of hints that are sent at once.
	hintSenders = 4

	// sendTimeout bounds one enqueue.
	sendTimeout = 2 * time.Second

	// drainTick is how often the Enqueuer checks for wanted drains. It sends the drain of a shard once in a flush interval, at a moment
	// of the shard's own, so that shards are drained one after the other, and not all at once. The moment follows the wall clock, so that
	// several apis send the same drain together, as one task. A shard with a whole batch waits for half an interval at most.
	drainTick = 20 * time.Millisecond

	// drainTries bounds how often a drain is sent again because its ID was taken. A drain that has committed its epoch holds the ID until
	// Asynq has marked it done, and misses what is written meanwhile. Without another hint only the sweep would find those keys.
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

// Enqueuer sends hints about newly dirty keys to the workers, in the background. It never blocks and never fails: it drops and counts
// hints that cannot be sent. Their shards get drains once Redis is back, and the sweep finds their keys if the process ends before.
type Enqueuer struct {
	sender Sender
	o      EnqueuerOptions

	hints   chan hint
	limiter *rate.Limiter
	started time.Time
	busy    atomic.Int64   // until when keys get no tasks of their own, ns since started
	drains  []atomic.Int32 // by shard: noDrain to drainAgain
	stop    chan struct{}
	abort   context.CancelFunc // cancels sends in progress
	ended   sync.WaitGroup
	once    sync.Once

	shed    prometheus.Counter
	failed  prometheus.Counter
	failing atomic.Bool
}

const (
	noDrain    = 0
	drainSoon  = 1 // at the shard's next moment
	drainNow   = 2 // earlier, since there is a whole batch
	drainAgain = 3 // at the shard's next moment, because the ID was taken the last time
)

type hint struct {
	key   counter.Key
	shard counter.Shard

	headers map[string]string // of the trace; nil: no trace
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
		shed: promauto.With(options.Registerer).NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_enqueue_shed_total",
			Help: "Newly dirty keys that got no task of their own, but a drain of their shard, because there were too many.",
		}),
		failed: promauto.With(options.Registerer).NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_enqueue_failed_total",
			Help: "Tasks that could not be enqueued. A later drain or the sweep finds their keys.",
		}),
	}
	for range hintSenders {
		e.ended.Go(func() { e.sendHints(ctx) })
	}
	e.ended.Go(func() { e.sendDrains(ctx) })
	return e
}

// Offer accepts a key that has just become dirty. backlog is the number of dirty keys in its shard. While there are few, each key gets its
// own task, which shows in the queue and carries the trace in ctx if the trace is sampled. Above hintRate, or if the shard has more than
// a batch, the shard gets a drain instead.
func (e *Enqueuer) Offer(ctx context.Context, key counter.Key, shard counter.Shard, backlog int64) {
	if backlog > int64(e.o.FlushBatch) {
		e.drains[shard].Store(drainNow)
		return
	}
	now := time.Now()
	allowed := e.limiter.AllowN(now, 1)
	if !allowed {
		e.busy.Store(int64(now.Sub(e.started) + e.o.FlushInterval))
	}
	if allowed && int64(now.Sub(e.started)) >= e.busy.Load() {
		select {
		case e.hints <- hint{key: key, shard: shard, headers: traceHeaders(ctx)}:
			return
		default: // Redis is slow
		}
	}
	e.shed.Inc()
	e.want(shard)
}

// want makes the shard get a drain at its next moment.
func (e *Enqueuer) want(shard counter.Shard) {
	if !e.drains[shard].CompareAndSwap(noDrain, drainSoon) {
		e.drains[shard].CompareAndSwap(drainAgain, drainSoon)
	}
}

// Close sends queued hints until ctx ends, and stops the Enqueuer. When ctx ends, it cancels sends in progress, so that a Redis that does
// not answer cannot delay it. Later offers are dropped.
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
			e.sendHint(ctx, h)
		case <-e.stop:
			return
		}
	}
}

func (e *Enqueuer) sendHint(ctx context.Context, h hint) {
	conflict, sent := e.send(ctx, flushWith(h.headers, h.key, h.shard))
	switch {
	case !sent: // Redis fails over, or is down: a drain follows once it is back
		e.want(h.shard)
	case conflict: // Asynq may have aggregated that task, but not deleted it yet. Then the aggregate may be past its work.
		_, _ = e.send(ctx, Drain(h.shard, e.o.FlushInterval))
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
					return // Redis does not answer, or ctx has ended: the sweep finds the keys
				}
			}
			return
		}
	}
}

// drainState is the state of a shard in sendDrains.
type drainState struct {
	sent  time.Time // when the last drain was sent
	tries int       // how often it has been sent again
}

// sendWanted sends a wanted drain, and wants it again if its ID was taken.
func (e *Enqueuer) sendWanted(ctx context.Context, shard int, wanted int32, state *drainState) {
	e.drains[shard].Store(noDrain)
	if wanted != drainAgain {
		state.tries = 0
	}
	conflict, sent := e.sendDrain(ctx, shard)
	switch {
	case !sent: // once in a flush interval, until Redis is back
		e.want(counter.Shard(shard))
	case conflict && state.tries < drainTries:
		state.tries++
		e.drains[shard].CompareAndSwap(noDrain, drainAgain)
	}
}

// momentBetween reports whether the shard's moment in the flush interval was between before and now.
func (e *Enqueuer) momentBetween(shard int, before, now time.Time) bool {
	interval := int64(e.o.FlushInterval)
	offset := interval * int64(shard) / int64(len(e.drains))
	return (now.UnixNano()-offset)/interval != (before.UnixNano()-offset)/interval
}

func (e *Enqueuer) sendDrain(ctx context.Context, shard int) (conflict, sent bool) {
	return e.send(ctx, Drain(counter.Shard(shard), 0))
}

// send enqueues task within sendTimeout. conflict reports whether a task with the same ID was already there, and sent whether Redis has
// one of the two. It logs only the first of a series of failures.
func (e *Enqueuer) send(ctx context.Context, task *asynq.Task) (conflict, sent bool) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	conflict, err := TrySend(ctx, e.sender, task)
	if err == nil {
		e.failing.Store(false)
		return conflict, true
	}
	e.failed.Inc()
	if !e.failing.Swap(true) {
		e.o.Logger.Warn("cannot enqueue tasks; drains follow once redis answers", "error", err)
	}
	return false, false
}
