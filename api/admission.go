package api

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/semaphore"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Bounds on the bodies of batches, reads and flushes that are being received. A body that has received little data holds little
// memory, so many are allowed. A body larger than largeBodyBytes needs one of a few slots, which clients that send nothing
// cannot use up. So memory is bounded: about 0.1 MB for a small body, 4 MB for a large one, and up to about four times the size
// of a body that is one long string. A zstd body needs a large slot at once, because its decoder may hold 9 MiB. Sizes are
// those of decompressed bodies.
const (
	maxSmallBodies   = 1024
	maxLargeBodies   = 64
	largeBodyBytes   = 16 << 10
	bodyGrace        = 500 * time.Millisecond // every body may take this long
	bodyBytesPerSec  = 1 << 20                // adds to the grace: a body of 8 MiB is slow after 8.5 s
	expulsionTimeout = time.Second            // the expelled request needs only to wake up
)

// admission admits the bodies of batches, reads and flushes. A slow body is accepted while there are free slots. When there is none,
// the slowest body is expelled: its read fails, and its request is answered 503.
type admission struct {
	small, large *limiter
}

func newAdmission(small, large int, grace time.Duration) *admission {
	return &admission{small: newLimiter(small, grace), large: newLimiter(large, grace)}
}

// arrival is a body that is being received.
type arrival struct {
	admission *admission
	limiter   *limiter // it holds a slot of this limiter
	began     time.Time
	received  atomic.Int64 // bytes
	expelled  atomic.Bool
	cutOff    func() // makes its reads fail; does not block
}

// admit gives a body a slot, or returns an error. The caller calls end.
func (a *admission) admit(c echo.Context) (*arrival, error) {
	w := http.NewResponseController(c.Response().Writer)
	body := &arrival{
		admission: a, limiter: a.small, began: time.Now(),
		cutOff: func() { _ = w.SetReadDeadline(time.Unix(1, 0)) }, // net/http's own connections support it
	}
	if !a.small.acquire(body) {
		return nil, overloaded("too many batches, reads or flushes are being received; nothing was applied")
	}
	return body, nil
}

// receive counts n more bytes. It blocks for up to a second while another body is expelled.
func (b *arrival) receive(n int) error {
	if b.received.Add(int64(n)) <= largeBodyBytes {
		return nil
	}
	return b.becomeLarge()
}

// becomeLarge takes a large slot instead of the small one, unless the body has one. It blocks like receive.
func (b *arrival) becomeLarge() error {
	if b.limiter == b.admission.large {
		return nil
	}
	if !b.admission.large.acquire(b) {
		return overloaded("too many large batches, reads or flushes are being received; nothing was applied")
	}
	b.limiter.release(b)
	b.limiter = b.admission.large
	return nil
}

// end releases the slot. It returns an error if the body was expelled, even if all of it has arrived: its connection cannot
// be used any more.
func (b *arrival) end() error {
	b.limiter.release(b)
	if b.expelled.Load() {
		return overloaded("the body arrived too slowly while others were waiting; nothing was applied")
	}
	return nil
}

// behind returns by how much the body has exceeded the time for the bytes that have arrived. It is negative if the body is in
// time.
func (b *arrival) behind(now time.Time, grace time.Duration) time.Duration {
	return now.Sub(b.began) - grace - time.Duration(b.received.Load())*time.Second/bodyBytesPerSec
}

func overloaded(detail string) error {
	return &counter.Error{Code: counter.CodeOverloaded, RetryAfter: time.Second, Detail: detail}
}

// limiter has a number of slots, and a set of the bodies that hold them.
type limiter struct {
	slots *semaphore.Weighted
	grace time.Duration

	mu      sync.Mutex
	holders map[*arrival]struct{}
}

func newLimiter(slots int, grace time.Duration) *limiter {
	return &limiter{slots: semaphore.NewWeighted(int64(slots)), grace: grace, holders: make(map[*arrival]struct{}, slots)}
}

// acquire takes a slot for the body. If none is free, it expels the slowest body and waits for a slot. It returns false if no
// body is slow, or after expulsionTimeout.
func (l *limiter) acquire(b *arrival) bool {
	if !l.slots.TryAcquire(1) {
		if !l.expelSlowest(time.Now()) {
			return false
		}
		ctx, cancel := context.WithTimeout(context.Background(), expulsionTimeout)
		defer cancel()
		if l.slots.Acquire(ctx, 1) != nil {
			return false
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holders[b] = struct{}{}
	return true
}

// expelSlowest expels the body that is furthest behind. It returns false if none is behind.
func (l *limiter) expelSlowest(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var slowest *arrival
	var most time.Duration
	for b := range l.holders {
		if behind := b.behind(now, l.grace); behind > most && !b.expelled.Load() {
			slowest, most = b, behind
		}
	}
	if slowest == nil {
		return false
	}
	slowest.expelled.Store(true)
	slowest.cutOff() // under the lock: after release(slowest) the connection may carry another request
	return true
}

func (l *limiter) release(b *arrival) {
	l.mu.Lock()
	delete(l.holders, b)
	l.mu.Unlock()
	l.slots.Release(1)
}
