package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"
)

// Errors of a Batcher.
var (
	// ErrFull means that the increment was not taken: as many keys as BatcherOptions.MaxKeys have increments that are not acknowledged.
	ErrFull = errors.New("client: the batcher is full; the increment was not taken: Flush and add it again, or drop it")
	// ErrClosed means that the increment was not taken, because the Batcher is closed.
	ErrClosed = errors.New("client: the batcher is closed; the increment was not taken")
)

// BatcherOptions configure a Batcher. The zero value works.
type BatcherOptions struct {
	// Interval is the time from one request to the next, and so how long an increment waits at most while the server answers. 0: 100 ms.
	Interval time.Duration
	// MaxBatch is the number of keys in one request. As soon as so many wait, they are sent. 0: 1,000. At most MaxOperations.
	MaxBatch int
	// MaxKeys bounds the memory: the number of keys with increments that are not acknowledged. 0: 100,000, which need about 30 MB.
	MaxKeys int
	// MaxAge bounds how long a sum is repeated after an attempt whose outcome is unknown. It must be shorter than the server's
	// AFTERWRITE_IDEMPOTENCY_TTL (24 h): later, a repetition could count twice. 0: 12 h.
	MaxAge time.Duration
	// OnRefused is called with each sum that is given up: the server refused it for good, or it is older than MaxAge. It is called by
	// the goroutine that sends, so it must not block, nor call Flush or Close. Nil: the sum is logged.
	OnRefused func(Sum)
	// Logger gets a line when requests begin to fail, and one when they succeed again. Nil: slog.Default().
	Logger *slog.Logger
}

// Sum is a sum of increments that was not acknowledged.
type Sum struct {
	Key string
	By  int64
	// ID is the sum's Idempotency-Key. An increment of Key with exactly By and this ID may be repeated without counting twice. "" if the
	// sum was never sent.
	ID string
	// Err is why the sum was refused, or the last failure, or nil.
	Err error
	// Applied is AppliedUnknown if the server may have applied the sum, else AppliedNo.
	Applied Applied
}

// SumsError lists sums that were not acknowledged.
type SumsError struct {
	Sums []Sum // at most 1,000 from Flush, and all from Close
	// More is the number of further sums.
	More  int
	cause error
}

// Error names the first sum.
func (e *SumsError) Error() string {
	text := fmt.Sprintf("client: %d sums of increments were not acknowledged", len(e.Sums)+e.More)
	if len(e.Sums) > 0 {
		first := e.Sums[0]
		text += fmt.Sprintf(", such as %+d of %q (applied: %s)", first.By, first.Key, first.Applied)
		if first.Err != nil {
			text += ": " + first.Err.Error()
		}
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns the context's error if time ran out, or nil.
func (e *SumsError) Unwrap() error { return e.cause }

// Is makes errors.Is(err, ErrOutcomeUnknown) true if the server may have applied one of the sums.
func (e *SumsError) Is(target error) bool {
	if target != ErrOutcomeUnknown {
		return false
	}
	for _, sum := range e.Sums {
		if sum.Applied == AppliedUnknown {
			return true
		}
	}
	return false
}

// Batcher adds up increments by key in memory and sends the sums, many in one request. A goroutine of its own sends, one request at a
// time. It is safe for concurrent use.
//
// Each sum that is sent has an ID, and is repeated with it until its outcome is known: so nothing counts twice. Later increments of its
// key go into a new sum meanwhile. A process that is killed loses what was not sent: at most an Interval's increments while the server
// answers.
type Batcher struct {
	client  *Client
	options BatcherOptions
	wake    chan struct{} // capacity 1: there is work that cannot wait for the interval
	stop    context.CancelFunc
	stopped chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	closed bool
	sums   sums

	closing sync.Once
	result  error // of Close
}

// NewBatcher returns a running Batcher. Close it to send the rest; close the Client after it.
func (c *Client) NewBatcher(o BatcherOptions) (*Batcher, error) {
	setDefault(&o.Interval, 100*time.Millisecond)
	setDefault(&o.MaxBatch, 1000)
	setDefault(&o.MaxKeys, 100_000)
	setDefault(&o.MaxAge, 12*time.Hour)
	if o.Interval < 0 || o.MaxBatch < 0 || o.MaxBatch > MaxOperations || o.MaxKeys < 0 || o.MaxAge < 0 {
		return nil, fmt.Errorf("client: the options of a batcher must not be negative, and MaxBatch be at most %d", MaxOperations)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Batcher{
		client: c, options: o, wake: make(chan struct{}, 1), stop: stop, stopped: make(chan struct{}),
		sums: newSums(),
	}
	go b.run(ctx)
	return b, nil
}

// Add adds by to the sum of the key. It never blocks: it returns ErrFull or ErrClosed if it did not take the increment, or an *Error
// with CodeInvalidKey, or CodeOverflow if the sum would overflow. A sum of 0 is not sent.
func (b *Batcher) Add(key string, by int64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return ErrClosed
	}
	e := b.sums.keys[key]
	if e == nil {
		if len(b.sums.keys) >= b.options.MaxKeys {
			b.hurry()
			return ErrFull
		}
		e = b.sums.insert(key)
	}
	if (by > 0 && e.open > math.MaxInt64-by) || (by < 0 && e.open < math.MinInt64-by) {
		return invalid(CodeOverflow, "the sum of the increments of %q would overflow; the increment was not taken", key)
	}
	b.sums.add(e, by)
	if waiting := len(b.sums.ready); waiting == b.options.MaxBatch || len(b.sums.keys) == b.options.MaxKeys {
		b.hurry()
	}
	return nil
}

// hurry wakes the goroutine before the interval has passed.
func (b *Batcher) hurry() {
	select {
	case b.wake <- struct{}{}:
	default: // it will wake
	}
}

// Flush sends what was added before, and waits until the server has acknowledged or refused it. If sums were refused meanwhile, it
// returns a *SumsError with them, after OnRefused. If ctx ends first, it returns the error of ctx; the sums are kept and sent later.
func (b *Batcher) Flush(ctx context.Context) error {
	b.mu.Lock()
	w := b.sums.wait()
	b.mu.Unlock()
	b.hurry()
	select {
	case <-w.done:
		return w.err()
	case <-ctx.Done():
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sums.forget(w)
		return fmt.Errorf("client: flush: not all is acknowledged yet, the rest is sent later: %w", ctx.Err())
	}
}

// Close makes Add return ErrClosed, sends what is left, and waits until the server has acknowledged or refused it. If ctx ends first, it
// gives up and returns a *SumsError with all sums that were not acknowledged: log them. Those with Applied unknown may be repeated with
// their ID. Later calls return the same.
func (b *Batcher) Close(ctx context.Context) error {
	b.closing.Do(func() {
		b.mu.Lock()
		b.closed = true
		w := b.sums.wait()
		b.mu.Unlock()
		b.hurry()
		select {
		case <-w.done:
			b.stop()
			<-b.stopped
			b.result = w.err()
		case <-ctx.Done():
			b.stop()
			<-b.stopped // the goroutine cancels its request
			b.result = b.abandon(w, ctx.Err())
		}
	})
	return b.result
}

// abandon returns all sums that are left, after the refused ones.
func (b *Batcher) abandon(w *waiter, cause error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &SumsError{Sums: w.refused, More: w.more, cause: cause}
	for _, entry := range b.sums.keys {
		e.Sums = append(e.Sums, entry.left()...)
	}
	if len(e.Sums) == 0 {
		return nil // the last answer came with the deadline
	}
	return e
}
