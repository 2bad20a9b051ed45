package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// MaxWrites is the most operations that one Do takes. A script call holds fewer than twice as many: Redis does
	// nothing else meanwhile, and 500 take it up to 2 ms.
	MaxWrites = 250

	// maxQueued is the most operations that may wait for Redis. Past it, a caller is told so at once: at 50,000
	// operations a second these are 2 s of work, and who waits longer has left.
	maxQueued = 100_000

	// A call costs Redis as much as some twenty operations in it, and this process too, so those who come close together had
	// better share one: the next call begins perCaller after this one for each caller that this one has, maxPause at most. It
	// begins earlier once the queue holds that many callers. Below some 10,000 requests a second nobody waits.
	perCaller = 100 * time.Microsecond
	maxPause  = 2 * time.Millisecond
)

// Write is one operation on its way through a Writer.
type Write struct {
	counter.Operation

	// Blind takes the operation although the base of its key is unknown. A Get cannot be blind.
	Blind bool
}

// Outcome says what became of a Write.
type Outcome struct {
	Err error // an *counter.Error, or nil; when it is set, the rest means nothing but for Cold

	Value   int64
	Version int64
	Exists  bool
	Synced  bool
	Known   bool

	// Replayed is true when the operation was not carried out because one with its ID was: the rest is what was answered.
	Replayed bool

	// Cold is true when the operation was not applied because the base of its key is unknown. Token is then what
	// Hydrate needs, and BlindWrites says that there is an entry, of writes that wait for the base.
	Cold        bool
	BlindWrites bool
	Token       string

	// Epoch is the shard's open epoch when the operation was carried out, and First the first epoch of that incarnation of
	// Redis. Postgres has what it did when the shard's watermark has reached Epoch and First is still the same, unless the key
	// has been set aside.
	Epoch, First int64

	// Backlog is the number of keys in the shard's open epoch, as this call leaves it, if this operation has made its key
	// dirty, else 0.
	Backlog int64

	split bool // it was added up with others and has to be sent again, alone
}

// Writer sends the operations of concurrent callers to Redis: what has queued while one script call was in flight goes
// out as the next. Between calls that many share it pauses for some more to come, 2 ms at most. A lone caller pays one round
// trip and nothing else.
type Writer struct {
	cache    *Cache
	queue    chan *request
	queued   atomic.Int64 // operations in the queue and in flight
	mayDirty func() bool
	enough   atomic.Int64  // how many requests in the queue end the pause that there is, 0: there is none
	wake     chan struct{} // ends it; has room for one
	done     chan struct{}
	stop     context.CancelFunc
	closing  sync.Once
	tracer   trace.Tracer // nil: nothing is traced
}

// request is the operations of one caller. They go out in one call: either all of them find a key cold, or none.
type request struct {
	ctx      context.Context //nolint:containedctx // it travels with the request through the queue
	writes   []Write
	outcomes []Outcome
	done     chan struct{}
}

// NewWriter returns a running Writer; Close ends it. mayDirty is asked before each call whether clean keys may become
// dirty; it must not block.
func (c *Cache) NewWriter(mayDirty func() bool) *Writer {
	ctx, stop := context.WithCancel(context.Background())
	w := &Writer{
		cache:    c,
		queue:    make(chan *request, maxQueued),
		mayDirty: mayDirty,
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		stop:     stop,
	}
	go w.run(ctx)
	return w
}

// Do carries out 1 to MaxWrites writes in order, in one atomic step (on a cluster, one for each shard), and returns an
// outcome for each. All writes of a cold key come back cold, so the order on a key is kept when they are sent again. It
// blocks until Redis has answered or ctx ends; writes stays in use until then, and must not be changed afterwards.
func (w *Writer) Do(ctx context.Context, writes []Write) []Outcome {
	r := &request{ctx: ctx, writes: writes, outcomes: make([]Outcome, len(writes)), done: make(chan struct{})}
	n := int64(len(writes))
	if w.queued.Add(n) > maxQueued {
		w.queued.Add(-n)
		return refuse(r.outcomes, overloaded())
	}
	select {
	case w.queue <- r:
	case <-w.done:
		w.queued.Add(-n)
		return refuse(r.outcomes, overloaded())
	}
	w.endPause()
	select {
	case <-r.done:
		return r.outcomes
	case <-ctx.Done():
		return refuse(make([]Outcome, len(writes)), givenUp(ctx))
	case <-w.done:
		// The writer may have answered on its way out.
		select {
		case <-r.done:
			return r.outcomes
		default:
			return refuse(make([]Outcome, len(writes)), overloaded())
		}
	}
}

// Close ends the writer after the call in flight and what is queued have been answered. Call it when no Do is running
// any more; a Do that comes later gets an error.
func (w *Writer) Close() {
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

// run is the only goroutine that sends: one call in flight keeps the order of operations on a key.
func (w *Writer) run(ctx context.Context) {
	defer close(w.done)
	var batch []*request
	var next time.Time // when the next call is due
	callers := 0       // of the last one
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
			return
		}
	}
}

// pause lets more callers come, for as long as d, or until as many have come as the last call had, or operations enough for one.
// The first of them has left the queue already.
func (w *Writer) pause(ctx context.Context, d time.Duration, callers int) {
	if d < perCaller || w.queued.Load() >= MaxWrites {
		return
	}
	select {
	case <-w.wake: // it came too late for an earlier pause
	default:
	}
	w.enough.Store(int64(max(callers-1, 1)))
	defer w.enough.Store(0)
	w.endPause() // they may be there already
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// endPause ends a pause if there is one and enough have come.
func (w *Writer) endPause() {
	if enough := w.enough.Load(); enough == 0 || int64(len(w.queue)) < enough {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default: // somebody else has ended it
	}
}

// gather adds what waits in the queue to batch until it has MaxWrites operations or more.
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

// send carries out a batch in one call and answers its callers. It takes no context: the callers' differ, and the client's
// time-outs bound it.
func (w *Writer) send(batch []*request) {
	ctx, end := w.begin(batch)
	defer end()
	a := application{ctx: ctx, cache: w.cache, mayDirty: w.mayDirty()}
	for _, r := range batch {
		if r.ctx.Err() != nil {
			refuse(r.outcomes, unsent(r.ctx)) // its caller has left, and nothing has been sent yet
			continue
		}
		for i := range r.writes {
			a.add(&r.writes[i], &r.outcomes[i])
		}
	}
	reached := a.run()
	w.answer(batch)
	if !reached {
		w.refuseQueued()
	}
}

// refuseQueued answers all that has queued by now without sending it. While Redis cannot be reached each call takes its
// time-out, and those who queue would wait for all before them.
func (w *Writer) refuseQueued() {
	problem := unreachable()
	for range len(w.queue) {
		r := <-w.queue
		refuse(r.outcomes, problem)
		w.answer([]*request{r})
	}
}

func (w *Writer) answer(batch []*request) {
	for _, r := range batch {
		w.queued.Add(-int64(len(r.writes)))
		close(r.done)
	}
}
