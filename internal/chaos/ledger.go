package main

import (
	"fmt"
	"sync"
	"time"
)

// outcome is what a client may believe about a write.
type outcome uint8

const (
	acknowledged  outcome = iota + 1 // it is applied
	refused                          // it is not applied, and never will be
	indeterminate                    // it is applied, or will be, or never
)

// sums adds amounts up, those above and those below zero apart: of a set of writes of which any part may be applied, the
// first is the most that they add to a value and the second the least.
type sums struct {
	up, down int64 // down is 0 or less
	count    int64
}

func (s sums) plus(by int64) sums {
	return sums{up: s.up + max(by, 0), down: s.down + min(by, 0), count: s.count + 1}
}

func (s sums) minus(o sums) sums {
	return sums{up: s.up - o.up, down: s.down - o.down, count: s.count - o.count}
}

// reading is a value and the version that belongs to it, from an answer or from a row.
type reading struct{ value, version int64 }

// bounds are where a reading has to lie.
type bounds struct{ low, high reading }

// newBounds are the bounds when the certain writes are applied and, of the possible ones, which include those, any part.
func newBounds(certain, possible sums) bounds {
	return bounds{
		low:  reading{value: certain.up + possible.down, version: certain.count},
		high: reading{value: possible.up + certain.down, version: possible.count},
	}
}

// check says what is wrong with r; "" means nothing.
func (b bounds) check(r reading) string {
	switch {
	case r.version < b.low.version:
		return fmt.Sprintf("version %d, but at least %d operations are applied: some are lost", r.version, b.low.version)
	case r.version > b.high.version:
		return fmt.Sprintf("version %d, but at most %d operations can be applied: some are counted twice", r.version, b.high.version)
	case r.value < b.low.value || r.value > b.high.value:
		return fmt.Sprintf("value %d, which is not within %d to %d", r.value, b.low.value, b.high.value)
	}
	return ""
}

// account is what is known of one counter that is only incremented. It is safe for concurrent use.
type account struct {
	key string

	mu       sync.Mutex
	begun    sums // every increment that was sent, whatever became of it
	acked    sums
	refused  sums
	seen     int64  // the newest version in any answer: it is durable, so none later may be older
	versions bitset // those of acknowledged increments: each belongs to one
	history  history
}

// window is what was certain when a request was sent. Its answer may be no older.
type window struct {
	certain sums
	seen    int64
}

// open begins a read.
func (a *account) open() window {
	a.mu.Lock()
	defer a.mu.Unlock()
	return window{certain: a.acked, seen: a.seen}
}

// begin begins an increment.
func (a *account) begin(by int64) window {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun = a.begun.plus(by)
	return window{certain: a.acked, seen: a.seen}
}

// read ends a read, and says what is wrong with what was read.
func (a *account) read(w window, r reading) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	problem := a.bounds(w).check(r)
	if problem == "" {
		a.seen = max(a.seen, r.version)
	}
	return problem
}

// settle ends an increment. r is what was answered, nil for an answer without a value; settle says what is wrong with it.
func (a *account) settle(w window, by int64, o outcome, r *reading) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch o {
	case refused:
		a.refused = a.refused.plus(by)
	case acknowledged:
		a.acked = a.acked.plus(by)
	case indeterminate:
	}
	if o != acknowledged || r == nil {
		return ""
	}
	w.certain = w.certain.plus(by)
	w.seen++ // its own version is a new one
	if problem := a.bounds(w).check(*r); problem != "" {
		return problem
	}
	if !a.versions.add(r.version) {
		return fmt.Sprintf("version %d was given to two acknowledged increments", r.version)
	}
	a.seen = max(a.seen, r.version)
	return ""
}

// bounds must be called with the lock held.
func (a *account) bounds(w window) bounds {
	b := newBounds(w.certain, a.begun.minus(a.refused))
	b.low.version = max(b.low.version, w.seen)
	return b
}

// final are the bounds when no request is on its way any more.
func (a *account) final() bounds {
	w := a.open()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bounds(w)
}

func (a *account) note(e event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.history.add(e)
}

func (a *account) events() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.history.lines()
}

// bitset is a set of small integers, which versions are.
type bitset []uint64

// add reports whether n is new.
func (b *bitset) add(n int64) bool {
	word, bit := n/64, uint64(1)<<(n%64)
	for int64(len(*b)) <= word {
		*b = append(*b, 0)
	}
	if (*b)[word]&bit != 0 {
		return false
	}
	(*b)[word] |= bit
	return true
}

// ledger is all accounts, and the counts of what was answered.
type ledger struct {
	started  time.Time
	accounts []*account
	tally    *tally
	findings *findings
}

func newLedger(keys int) *ledger {
	l := &ledger{started: time.Now(), tally: newTally(), findings: &findings{}}
	for i := range keys {
		l.accounts = append(l.accounts, &account{key: fmt.Sprintf("hits/é %03d", i)})
	}
	return l
}

// since is how long the run has lasted: the time in its events.
func (l *ledger) since() time.Duration { return time.Since(l.started) }
