package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// MaxWrites bounds the operations of one Do. A script call holds fewer than twice as many, because it blocks Redis: 500 operations take
	// up to 2 ms.
	MaxWrites = 250

	// maxQueued bounds the operations that wait for Redis; beyond it, a caller gets an error at once. At 50,000 operations a second this is
	// 2 s of work; clients do not wait longer.
	maxQueued = 100_000

	// A call costs Redis and this process as much as about twenty operations, so callers that arrive close together should share one. After
	// a call with n callers the Writer pauses for n times perCaller, maxPause at most, or until n callers are queued. Below about 10,000
	// requests a second no caller waits.
	perCaller = 100 * time.Microsecond
	maxPause  = 2 * time.Millisecond
)

// Write is one operation for a Writer.
type Write struct {
	counter.Operation

	// Blind applies the operation even if the base of its key is unknown, or its entry unchecked. A Get cannot be blind.
	Blind bool
	// Accept carries out the operation even if its entry is unchecked.
	Accept bool
}

// Outcome is the result of a Write.
type Outcome struct {
	Err error // a *counter.Error, or nil; if it is set, all else but Cold is meaningless

	Value   int64
	Version int64
	Exists  bool
	Synced  bool
	Known   bool

	// Replayed is true if an operation with the same ID was carried out before: the rest is its answer.
	Replayed bool

	// Cold is true if the operation was not applied because the base of its key is unknown. Then Token is for Hydrate, and BlindWrites is
	// true if the entry has writes that wait for the base. If Unchecked is also true, the entry is complete, but unchecked: then Token is
	// for Check.
	Cold        bool
	BlindWrites bool
	Unchecked   bool
	Token       string

	// Epoch is the shard's open epoch when the operation was carried out, and First the first epoch of that incarnation of Redis. Postgres
	// has the write once the shard's watermark has reached Epoch while First is the same, unless the key has been set aside.
	Epoch, First int64

	// Backlog is the number of keys in the shard's open epoch after this call, if this operation has made its key dirty, else 0.
	Backlog int64

	// Confirmation is set by a durable Writer if the write was applied, now or earlier (Replayed).
	Confirmation *Confirmation

	split bool // it was combined with others and has to be sent again on its own
}

// Writer sends the operations of concurrent callers to Redis: operations that are queued during one script call go out together in the
// next. After a call with many callers it pauses for up to 2 ms, so that more can join. A lone caller waits for one round trip only. On a
// cluster each master has its own queue and call, so that one that hangs does not hold up the shards of the others.
type Writer struct {
	cache    *Cache
	queue    chan *request
	queued   atomic.Int64 // operations in the queue and in flight
	mayDirty func() bool
	enough   atomic.Int64  // how many queued requests end the current pause; 0: there is none
	wake     chan struct{} // ends the pause; has room for one
	done     chan struct{}
	stop     context.CancelFunc
	closing  sync.Once
	tracer   trace.Tracer // nil: nothing is traced
	limit    int64        // of queued
	lanes    *lanes       // on a cluster they do everything; else nil

	// Of a durable Writer.
	level      Level
	replicas   int
	servers    map[*redis.Client]*durableServer
	confirming sync.WaitGroup
	awaiting   atomic.Int64    // callers whose writes are not confirmed yet
	stopping   context.Context //nolint:containedctx // Close ends it
}

// request holds the operations of one caller. They go out in one call, so a key is cold for all of them or for none.
type request struct {
	ctx      context.Context //nolint:containedctx // it travels with the request through the queue
	until    time.Time       // when the caller stops waiting for the confirmation
	writes   []Write
	outcomes []Outcome
	done     chan struct{}
}

// NewWriter returns a running Writer; Close ends it. It calls mayDirty before each call to find out whether clean keys may become dirty;
// mayDirty must not block.
func (c *Cache) NewWriter(mayDirty func() bool) *Writer {
	return c.startWriter(func(limit int) *Writer { return c.newWriter(mayDirty, limit) })
}

// startWriter starts what lane returns; on a cluster, one for each master. limit bounds the operations in its queue.
func (c *Cache) startWriter(lane func(limit int) *Writer) *Writer {
	if cluster, ok := c.client.(*redis.ClusterClient); ok {
		return &Writer{lanes: newLanes(c, cluster, lane)}
	}
	w := lane(maxQueued)
	w.start()
	return w
}

func (c *Cache) newWriter(mayDirty func() bool, limit int) *Writer {
	ctx, stop := context.WithCancel(context.Background())
	return &Writer{
		cache:    c,
		queue:    make(chan *request, limit),
		limit:    int64(limit),
		mayDirty: mayDirty,
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		stop:     stop,
		stopping: ctx,
	}
}

func (w *Writer) start() { go w.run(w.stopping) }

// Do carries out 1 to MaxWrites writes in order, in one atomic step (on a cluster, one for each shard), and returns their outcomes. If a
// key is cold, all its writes have a Cold outcome, so resending them keeps their order. It blocks until Redis has answered or ctx ends. Do
// not change writes afterwards: the Writer may still read them.
func (w *Writer) Do(ctx context.Context, writes []Write) []Outcome {
	return w.DoUntil(ctx, writes, time.Time{})
}

// DoUntil is Do for a durable Writer. It does not wait for the Confirmation of an outcome, which comes until then, or never.
func (w *Writer) DoUntil(ctx context.Context, writes []Write, until time.Time) []Outcome {
	if w.lanes != nil {
		return w.lanes.do(ctx, writes, until)
	}
	return w.await(ctx, w.enqueue(ctx, writes, until))
}

// enqueue queues the writes of one caller. If there are too many in the queue, or the Writer is closed, it refuses them.
func (w *Writer) enqueue(ctx context.Context, writes []Write, until time.Time) *request {
	r := &request{ctx: ctx, until: until, writes: writes, outcomes: make([]Outcome, len(writes)), done: make(chan struct{})}
	n := int64(len(writes))
	if w.queued.Add(n) <= w.limit {
		select {
		case w.queue <- r:
			w.endPause()
			return r
		case <-w.done:
		}
	}
	w.queued.Add(-n)
	refuse(r.outcomes, overloaded())
	close(r.done)
	return r
}

// await blocks until the request is answered or ctx ends.
func (w *Writer) await(ctx context.Context, r *request) []Outcome {
	var problem func() *counter.Error
	select {
	case <-r.done:
	case <-ctx.Done():
		problem = func() *counter.Error { return givenUp(ctx) }
	case <-w.done:
		problem = overloaded
	}
	// The Writer may have answered at the same time, or just before it ended.
	select {
	case <-r.done:
		return r.outcomes
	default:
		return refuse(make([]Outcome, len(r.writes)), problem())
	}
}

// Close ends the Writer once everything queued has been answered. Call it after the last Do has returned; a later Do gets an error. A
// durable Writer stops waiting for confirmations.
func (w *Writer) Close() {
	if w.lanes != nil {
		w.lanes.close()
		return
	}
	w.closing.Do(func() {
		w.stop()
		<-w.done
	})
}

func refuse(outcomes []Outcome, err *counter.Error) []Outcome {
	for i := range outcomes {
		outcomes[i] = Outcome{Err: err}
	}
	return outcomes
}

// run is the only goroutine that sends: a single call in flight keeps the order of operations on a key.
func (w *Writer) run(ctx context.Context) {
	defer close(w.done)
	var batch []*request
	var next time.Time // when the next call is due
	callers := 0       // of the last call
	for {
		select {
		case r := <-w.queue:
			w.pause(ctx, time.Until(next), callers)
			batch = w.gather(append(batch[:0], r))
			callers = len(batch)
			next = time.Now().Add(min(time.Duration(callers)*perCaller, maxPause))
			w.send(batch) //nolint:contextcheck // see send
		case <-ctx.Done():
			for len(w.queue) > 0 {
				batch = w.gather(batch[:0])
				w.send(batch) //nolint:contextcheck // see send
			}
			w.confirming.Wait() // their callers must not take done for an answer
			return
		}
	}
}

// pause waits for more callers: for d, or until there are as many as in the last call and those whose confirmation is due are back, or
// enough operations for one call. The first caller has already left the queue.
func (w *Writer) pause(ctx context.Context, d time.Duration, callers int) {
	if d < perCaller || w.queued.Load() >= MaxWrites {
		return
	}
	select {
	case <-w.wake: // too late for an earlier pause
	default:
	}
	w.enough.Store(max(int64(callers-1), int64(len(w.queue))+w.awaiting.Load(), 1))
	defer w.enough.Store(0)
	w.endPause() // enough callers may be queued already
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// endPause ends the current pause, if enough callers are queued.
func (w *Writer) endPause() {
	if enough := w.enough.Load(); enough == 0 || int64(len(w.queue)) < enough {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default: // another caller has ended it
	}
}

// gather adds queued requests to batch until it has MaxWrites operations or more.
func (w *Writer) gather(batch []*request) []*request {
	size := 0
	for _, r := range batch {
		size += len(r.writes)
	}
	for size < MaxWrites {
		select {
		case r := <-w.queue:
			batch = append(batch, r)
			size += len(r.writes)
		default:
			return batch
		}
	}
	return batch
}

// send carries out a batch in one call and answers its callers. The client's time-outs bound it, because its callers have different
// contexts.
func (w *Writer) send(batch []*request) {
	ctx, end := w.begin(batch)
	defer end()
	a := application{ctx: ctx, cache: w.cache, client: w.cache.client, mayDirty: w.mayDirty()}
	var until time.Time
	for _, r := range batch {
		if r.ctx.Err() != nil {
			refuse(r.outcomes, unsent(r.ctx)) // its caller left before the batch was sent
			continue
		}
		for i := range r.writes {
			a.add(&r.writes[i], &r.outcomes[i])
		}
		if r.until.After(until) {
			until = r.until
		}
	}
	var reached bool
	var confirmations []*Confirmation
	if w.level == InMemory {
		reached = a.run()
	} else {
		reached, confirmations = w.runDurably(&a, until, len(batch))
	}
	if !reached {
		w.refuseQueued() // before the answers: what a caller sends after its answer was not queued meanwhile
	}
	if len(confirmations) > 0 {
		w.answerConfirmed(batch, confirmations)
	} else {
		w.answer(batch)
	}
}

// refuseQueued answers everything queued by now with an error, without sending it. While Redis is unreachable each call lasts until its
// time-out, and queued callers would wait for all calls before theirs.
func (w *Writer) refuseQueued() {
	problem := unreachable()
	for range len(w.queue) {
		r := <-w.queue
		refuse(r.outcomes, problem)
		w.answer([]*request{r})
	}
}

func (w *Writer) answer(batch []*request) {
	w.dequeue(batch)
	for _, r := range batch {
		close(r.done)
	}
}

// dequeue makes room for further operations.
func (w *Writer) dequeue(batch []*request) {
	for _, r := range batch {
		w.queued.Add(-int64(len(r.writes)))
	}
}
