package api

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Bounds on the batches that are being received. One of which little has come holds little, and there may be many; one that
// has shown that it is large needs one of a few places. So clients that send nothing cannot take the few places, and what is
// held has a bound: at most about 0.1 MB for each of the many, and for each of the few 4 MB, or three times a body that is one
// long string.
const (
	maxSmallBatches   = 1024
	maxLargeBatches   = 64
	largeBatchBytes   = 16 << 10
	batchGrace        = 500 * time.Millisecond // for each body, however little of it has come
	batchBytesPerSec  = 1 << 20                // past that: a batch of 8 MiB is not slow before 8.5 s
	makingRoomTimeout = time.Second            // the one that makes room has only to wake up
)

// intake is where the bodies of batches come in. One that comes slowly is welcome while there is room. When there is none, the
// slowest makes room for the next: its read ends with an error, and it is answered 503.
type intake struct {
	small, large *lane
}

func newIntake(small, large int, grace time.Duration) *intake {
	return &intake{small: newLane(small, grace), large: newLane(large, grace)}
}

// arrival is a body that is being received.
type arrival struct {
	intake   *intake
	visit    *visit
	began    time.Time
	received atomic.Int64 // bytes
	expelled atomic.Bool  // it had to make room
	expel    func()       // makes its reads fail; does not block
}

// begin lets a body in, or says that there is no room. The caller ends it.
func (i *intake) begin(c echo.Context) (*arrival, error) {
	w := http.NewResponseController(c.Response().Writer)
	a := &arrival{
		intake: i, began: time.Now(),
		expel: func() { _ = w.SetReadDeadline(time.Unix(1, 0)) }, // net/http's own connections can do it
	}
	if a.visit = i.small.enter(a); a.visit == nil {
		return nil, noRoom("too many batches are being received; nothing was applied")
	}
	return a, nil
}

// receive takes note of n more bytes. It blocks for as long as another one takes to make room, a second at most.
func (a *arrival) receive(n int) error {
	if a.received.Add(int64(n)) <= largeBatchBytes || a.visit.lane == a.intake.large {
		return nil
	}
	large := a.intake.large.enter(a)
	if large == nil {
		return noRoom("too many large batches are being received; nothing was applied")
	}
	a.visit.leave()
	a.visit = large
	return nil
}

// end gives the place back, and returns an error for a body that had to make room: it is of no use even if all of it has come,
// because its connection is not.
func (a *arrival) end() error {
	a.visit.leave()
	if a.expelled.Load() {
		return noRoom("the body came too slowly while many others were waiting; nothing was applied")
	}
	return nil
}

// behind is how much longer the body has taken than it may.
func (a *arrival) behind(now time.Time, grace time.Duration) time.Duration {
	return now.Sub(a.began) - grace - time.Duration(a.received.Load())*time.Second/batchBytesPerSec
}

func noRoom(detail string) error {
	return &counter.Error{Code: counter.CodeOverloaded, RetryAfter: time.Second, Detail: detail}
}

// lane is a number of places.
type lane struct {
	places int
	grace  time.Duration

	mu     sync.Mutex
	inside map[*visit]struct{}
}

func newLane(places int, grace time.Duration) *lane {
	return &lane{places: places, grace: grace, inside: make(map[*visit]struct{}, places)}
}

// visit is a body's stay in a lane. heir belongs to the lane's lock.
type visit struct {
	lane *lane
	body *arrival
	heir *visit        // who gets the place, once it is asked for
	done chan struct{} // closed when it is over
}

// enter returns the body's place, nil where there is none and no body is so slow that it has to make room.
func (l *lane) enter(a *arrival) *visit {
	v := &visit{lane: l, body: a, done: make(chan struct{})}
	l.mu.Lock()
	if len(l.inside) < l.places {
		l.inside[v] = struct{}{}
		l.mu.Unlock()
		return v
	}
	slow := l.slowest(time.Now())
	if slow == nil {
		l.mu.Unlock()
		return nil
	}
	slow.heir = v
	slow.body.expelled.Store(true)
	slow.body.expel() // within the lock: after its leave the connection may be about another request
	l.mu.Unlock()

	timeout := time.NewTimer(makingRoomTimeout)
	defer timeout.Stop()
	select {
	case <-slow.done:
		return v
	case <-timeout.C:
		return l.disclaim(slow, v)
	}
}

// disclaim gives up waiting for a place, unless it has become free meanwhile.
func (l *lane) disclaim(slow, v *visit) *visit {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-slow.done:
		return v
	default:
		slow.heir = nil
		return nil
	}
}

// slowest returns who is furthest behind, of those who have not been asked to make room; nil when nobody is.
func (l *lane) slowest(now time.Time) *visit {
	var slowest *visit
	var most time.Duration
	for v := range l.inside {
		if behind := v.body.behind(now, l.grace); v.heir == nil && behind > most {
			slowest, most = v, behind
		}
	}
	return slowest
}

// leave gives the place to the heir, or back to the lane.
func (v *visit) leave() {
	v.lane.mu.Lock()
	defer v.lane.mu.Unlock()
	delete(v.lane.inside, v)
	if v.heir != nil {
		v.lane.inside[v.heir] = struct{}{}
	}
	close(v.done)
}
