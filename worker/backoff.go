package worker

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// outageDelay is the shortest wait before a task is tried again after an outage. A random part of up to twice as much is added, so that
	// not all tasks retry at once.
	outageDelay = time.Second

	// outageGap is the time between two retries of one worker while there are many: 10 a second, however many tasks wait. A probe of
	// Postgres needs no more, and each retry costs Redis some thirty commands of Asynq.
	outageGap = 100 * time.Millisecond

	// maxOutageDelay bounds the wait. With outageGap it leaves 300 distinct moments.
	maxOutageDelay = 30 * time.Second
)

// outageBackoff spreads the retries of tasks that failed through no fault of their own: each gets its own moment. Asynq does not count
// these failures, so the delay of a task cannot grow with their number.
type outageBackoff struct {
	mu   sync.Mutex
	next time.Time // the first free moment
}

// take returns how long a task that failed now must wait.
func (b *outageBackoff) take(now time.Time) time.Duration {
	delay := outageDelay + rand.N(2*outageDelay) //nolint:gosec // jitter needs no secret
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.full(now) { // the task must not be dropped: spread such tasks over the second half of the longest wait
		return maxOutageDelay - rand.N(maxOutageDelay/2) //nolint:gosec // jitter needs no secret
	}
	turn := now.Add(outageDelay)
	if b.next.After(turn) {
		turn = b.next
	}
	b.next = turn.Add(outageGap)
	return max(delay, turn.Sub(now))
}

// full reports whether no moment within maxOutageDelay is free.
func (b *outageBackoff) full(now time.Time) bool { return b.next.Sub(now) > maxOutageDelay }

const (
	// shortestDeferral is how long an entry is deferred the first time. Each further time takes twice as long, up to longestDeferral.
	shortestDeferral = 250 * time.Millisecond
	longestDeferral  = 5 * time.Second

	// deferralMemory is how long a worker remembers that it has deferred an entry, and maxDeferrals bounds the remembered entries. A
	// forgotten entry starts again with the shortest deferral.
	deferralMemory = 2 * longestDeferral
	maxDeferrals   = 10_000
)

// deferrals remembers which keys were deferred lately: their rows were locked by another transaction, or slow. It is safe for concurrent
// use.
type deferrals struct {
	mu   sync.Mutex
	keys map[counter.Key]deferral
}

type deferral struct {
	delay time.Duration // the latest
	at    time.Time
	slow  bool // the row took longer than the statement timeout
}

func newDeferrals() *deferrals { return &deferrals{keys: make(map[counter.Key]deferral)} }

// next groups the keys of entries by how long they are deferred now. slow: their rows took longer than the statement timeout.
func (d *deferrals) next(entries []cache.Entry, now time.Time, slow bool) map[time.Duration][]counter.Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	groups := make(map[time.Duration][]counter.Key)
	for i := range entries {
		key, delay := entries[i].Key, shortestDeferral
		if last, found := d.keys[key]; found && now.Sub(last.at) < deferralMemory {
			delay = min(2*last.delay, longestDeferral)
		}
		d.remember(key, deferral{delay, now, slow})
		groups[delay] = append(groups[delay], key)
	}
	return groups
}

// remember records a deferral. If there are too many, it drops the old ones, or all if none is old. The lock is held.
func (d *deferrals) remember(key counter.Key, last deferral) {
	if len(d.keys) >= maxDeferrals {
		for k, old := range d.keys {
			if last.at.Sub(old.at) >= deferralMemory {
				delete(d.keys, k)
			}
		}
		if len(d.keys) >= maxDeferrals {
			clear(d.keys)
		}
	}
	d.keys[key] = last
}

// split separates the entries that were slow in their last flush.
func (d *deferrals) split(entries []cache.Entry) (others, slow []cache.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.keys) == 0 {
		return entries, nil
	}
	for i := range entries {
		if d.keys[entries[i].Key].slow {
			slow = append(slow, entries[i])
		} else {
			others = append(others, entries[i])
		}
	}
	return others, slow
}

// forget drops entries that were written to Postgres.
func (d *deferrals) forget(entries []cache.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.keys) == 0 {
		return
	}
	for i := range entries {
		delete(d.keys, entries[i].Key)
	}
}
