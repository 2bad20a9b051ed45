package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// outcome is what a client may conclude about a write.
type outcome uint8

const (
	acknowledged  outcome = iota + 1 // it is applied
	refused                          // it is not applied, and never will be
	indeterminate                    // it is applied, or will be, or never
)

// sums adds up positive and negative amounts separately. If any part of a set of writes may be applied, up is the most that they add
// to a value, and down the least.
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

func (s sums) and(o sums) sums {
	return sums{up: s.up + o.up, down: s.down + o.down, count: s.count + o.count}
}

// reading is a value and the version that belongs to it, from an answer or from a row.
type reading struct{ value, version int64 }

func (r reading) and(o reading) reading {
	return reading{value: r.value + o.value, version: r.version + o.version}
}

// bounds are the limits of a correct reading.
type bounds struct{ low, high reading }

// newBounds are the bounds if all certain writes are applied, and any part of the other possible ones. possible includes certain.
func newBounds(certain, possible sums) bounds {
	return bounds{
		low:  reading{value: certain.up + possible.down, version: certain.count},
		high: reading{value: possible.up + certain.down, version: possible.count},
	}
}

// and are the bounds of both together.
func (b bounds) and(o bounds) bounds {
	return bounds{low: b.low.and(o.low), high: b.high.and(o.high)}
}

// check returns what is wrong with r, or "".
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
	begun    sums // every increment that was sent, whatever its outcome
	acked    sums
	refused  sums
	newest   reading       // in any answer: it is durable, so no later answer may be older
	valued   time.Duration // when the last increment was sent that was answered with a value
	row      reading       // the row when it was last read
	versions bitset        // those of acknowledged increments: each belongs to one
	history  history
}

// window is what was certain when a request was sent. The answer must not be older.
type window struct {
	certain sums
	newest  reading
	valued  time.Duration
}

// open begins a read.
func (a *account) open() window {
	a.mu.Lock()
	defer a.mu.Unlock()
	return window{certain: a.acked, newest: a.newest, valued: a.valued}
}

// begin begins an increment.
func (a *account) begin(by int64) window {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun = a.begun.plus(by)
	return window{certain: a.acked, newest: a.newest}
}

// read ends a read, and returns what is wrong with the reading, or "".
func (a *account) read(w window, r reading) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	problem := a.bounds(w).check(r)
	if problem == "" {
		problem = a.see(r)
	}
	return problem
}

// settle ends an increment that was sent at the given time. r is the answered reading, nil for an answer without a value. It returns
// what is wrong with the answer, or "".
func (a *account) settle(w window, by int64, sent time.Duration, o outcome, r *reading) string {
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
	w.newest.version++ // its own version is a new one
	if problem := a.bounds(w).check(*r); problem != "" {
		return problem
	}
	if !a.versions.add(r.version) {
		return fmt.Sprintf("version %d was given to two acknowledged increments", r.version)
	}
	a.valued = max(a.valued, sent)
	return a.see(*r)
}

// see records an answered reading: a version has one value, whoever asks. It must be called with the lock held.
func (a *account) see(r reading) string {
	if r.version == a.newest.version && r != a.newest {
		return fmt.Sprintf("value %d with version %d, which had value %d", r.value, r.version, a.newest.value)
	}
	if r.version > a.newest.version {
		a.newest = r
	}
	return ""
}

// look records a row that was read under load. It may be old, but a row must not go back, nor have a value that the counter never
// had.
func (a *account) look(r reading) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.row
	a.row = r
	possible := a.begun.minus(a.refused)
	switch {
	case r.version < before.version:
		return fmt.Sprintf("version %d, after it had version %d: the row has gone back", r.version, before.version)
	case r.version == before.version && r != before:
		return fmt.Sprintf("value %d with version %d, which had value %d", r.value, r.version, before.value)
	case r.version > possible.count:
		return fmt.Sprintf("version %d, but at most %d operations can be applied: some are counted twice", r.version, possible.count)
	case r.version == a.newest.version && r != a.newest:
		return fmt.Sprintf("value %d with version %d, which was answered with value %d", r.value, r.version, a.newest.value)
	}
	return ""
}

// bounds must be called with the lock held.
func (a *account) bounds(w window) bounds {
	b := newBounds(w.certain, a.begun.minus(a.refused))
	b.low.version = max(b.low.version, w.newest.version)
	return b
}

// final returns the bounds when no request is in flight any more, and what was acknowledged.
func (a *account) final() (bounds, sums) {
	w := a.open()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bounds(w), a.acked
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

// bitset is a set of small integers: versions.
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

// ledger has all accounts, and counts of the answers.
type ledger struct {
	started  time.Time
	accounts []*account
	reasons  *tally // answers by reason
	outcomes *tally // operations by kind and outcome, as in "increment 1"
	findings *findings

	// down is when the outage of Postgres began, in terms of since; 0: there is none. See outage.go.
	down atomic.Int64
}

// enter counts an operation by its answer.
func (l *ledger) enter(kind string, a answer) {
	o := a.outcome
	if kind == kindRead && a.missing { // that is a valid answer, too
		o = acknowledged
	}
	l.outcomes.add(outcomeKey(kind, o))
	if kind == kindRead {
		l.reasons.add("read: " + a.reason)
	} else {
		l.reasons.add(a.reason)
	}
}

// The kinds of operations, as the report has them.
const (
	kindIncrement = "increment"
	kindSet       = "set"
	kindDelete    = "delete"
	kindRead      = "read"
	kindWarmRead  = "warm read" // a read that must succeed even without Postgres
)

func outcomeKey(kind string, o outcome) string { return fmt.Sprintf("%s %d", kind, o) }

// writes counts the writes of an outcome.
func (l *ledger) writes(o outcome) int64 {
	var sum int64
	for _, kind := range []string{kindIncrement, kindSet, kindDelete} {
		sum += l.outcomes.sum(outcomeKey(kind, o))
	}
	return sum
}

func newLedger(keys int) *ledger {
	l := &ledger{started: time.Now(), reasons: newTally(), outcomes: newTally(), findings: &findings{}}
	for i := range keys {
		l.accounts = append(l.accounts, &account{key: fmt.Sprintf("hits/é %03d", i)})
	}
	return l
}

// since is how long the run has lasted: the time in its events.
func (l *ledger) since() time.Duration { return time.Since(l.started) }
