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

// Bounds on the batches that are being received. A batch that has received little data holds little memory, and there may be
// many; a large one needs one of a few slots. So clients that send nothing cannot take the few slots, and memory is bounded:
// about 0.1 MB for each small batch, and for each large one 4 MB, or three times a body that is one long string.
const (
	maxSmallBatches  = 1024
	maxLargeBatches  = 64
	largeBatchBytes  = 16 << 10
	batchGrace       = 500 * time.Millisecond // for each body, however little of it has arrived
	batchBytesPerSec = 1 << 20                // past that: a batch of 8 MiB is not slow before 8.5 s
	expulsionTimeout = time.Second            // the expelled batch has only to wake up
)

// admission admits the bodies of batches. A slow body is welcome while there are free slots. When there is none, the slowest
// one is expelled: its read fails, and it is answered 503.
type admission struct {
	small, large *limiter
}

func newAdmission(small, large int, grace time.Duration) *admission {
	return &admission{small: newLimiter(small, grace), large: newLimiter(large, grace)}
}

// arrival is a body that is being received.
type arrival struct {
	admission *admission
	slot      *limiter // whose slot it holds
	began     time.Time
	received  atomic.Int64 // bytes
	expelled  atomic.Bool
	cutOff    func() // makes its reads fail; does not block
}

// admit gives a body a slot, or returns an error. The caller calls end.
func (a *admission) admit(c echo.Context) (*arrival, error) {
	w := http.NewResponseController(c.Response().Writer)
	body := &arrival{
		admission: a, slot: a.small, began: time.Now(),
		cutOff: func() { _ = w.SetReadDeadline(time.Unix(1, 0)) }, // net/http's own connections support it
	}
	if !a.small.acquire(body) {
		return nil, noRoom("too many batches are being received; nothing was applied")
	}
	return body, nil
}

// receive counts n more bytes. It blocks while another body is expelled, a second at most.
func (b *arrival) receive(n int) error {
	if b.received.Add(int64(n)) <= largeBatchBytes || b.slot == b.admission.large {
		return nil
	}
	if !b.admission.large.acquire(b) {
		return noRoom("too many large batches are being received; nothing was applied")
	}
	b.slot.release(b)
	b.slot = b.admission.large
	return nil
}

// end releases the slot. It returns an error for a body that was expelled, even if all of it has arrived: its connection
// is of no more use.
func (b *arrival) end() error {
	b.slot.release(b)
	if b.expelled.Load() {
		return noRoom("the body came too slowly while many others were waiting; nothing was applied")
	}
	return nil
}

// behind is how much longer the body has taken than it may.
func (b *arrival) behind(now time.Time, grace time.Duration) time.Duration {
	return now.Sub(b.began) - grace - time.Duration(b.received.Load())*time.Second/batchBytesPerSec
}

func noRoom(detail string) error {
	return &counter.Error{Code: counter.CodeOverloaded, RetryAfter: time.Second, Detail: detail}
}

// limiter has a number of slots, and knows who holds them.
type limiter struct {
	slots *semaphore.Weighted
	grace time.Duration

	mu      sync.Mutex
	holders map[*arrival]struct{}
}

func newLimiter(slots int, grace time.Duration) *limiter {
	return &limiter{slots: semaphore.NewWeighted(int64(slots)), grace: grace, holders: make(map[*arrival]struct{}, slots)}
}

// acquire takes a slot for the body. If there is none it expels the slowest holder, and waits for a slot. It returns false
// if nobody is slow, or after expulsionTimeout.
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

// expelSlowest expels the body that is furthest behind. It returns false if none is.
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
	slowest.cutOff() // under the lock: after its release the connection may carry another request
	return true
}

func (l *limiter) release(b *arrival) {
	l.mu.Lock()
	delete(l.holders, b)
	l.mu.Unlock()
	l.slots.Release(1)
}
