package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/afterwrite/afterwrite/proof/world"
)

// outcome is what a client can conclude about a write.
type outcome = world.Outcome

const (
	acknowledged  = world.Acknowledged
	refused       = world.Refused
	indeterminate = world.Indeterminate
)

// sums adds up positive and negative amounts separately. If any subset of a set of writes may be applied, the value changes by at
// least down and at most up.
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

// reading is a value with its version, from an answer or from a row.
type reading struct{ value, version int64 }

// unversioned is the version of a reading over the Redis protocol, which has none.
const unversioned = -1

func (r reading) and(o reading) reading {
	return reading{value: r.value + o.value, version: r.version + o.version}
}

// bounds are the limits of a correct reading.
type bounds struct{ low, high reading }

// newBounds returns the bounds if all certain writes and any subset of the other possible writes are applied. possible includes
// certain.
func newBounds(certain, possible sums) bounds {
	return bounds{
		low:  reading{value: certain.up + possible.down, version: certain.count},
		high: reading{value: possible.up + certain.down, version: possible.count},
	}
}

// and adds two bounds.
func (b bounds) and(o bounds) bounds {
	return bounds{low: b.low.and(o.low), high: b.high.and(o.high)}
}

// check returns a problem if r is out of bounds, or "".
func (b bounds) check(r reading) string {
	switch {
	case r.version == unversioned: // only the value can be checked
	case r.version < b.low.version:
		return fmt.Sprintf("version %d, but at least %d operations are applied: some are lost", r.version, b.low.version)
	case r.version > b.high.version:
		return fmt.Sprintf("version %d, but at most %d operations can be applied: some are counted twice", r.version, b.high.version)
	}
	if r.value < b.low.value || r.value > b.high.value {
		return fmt.Sprintf("value %d, but it must be %d to %d", r.value, b.low.value, b.high.value)
	}
	return ""
}

// account records all answers about one counter that is only incremented. It is safe for concurrent use.
type account struct {
	name

	// weak: reads may be old, and Redis may lose what it has not acknowledged, as with a topology.
	weak bool

	mu       sync.Mutex
	begun    sums // all increments sent
	acked    sums
	refused  sums
	newest   reading       // the newest answer; it is durable, so later answers must not be older
	valued   time.Duration // send time of the last increment answered with a value
	row      reading       // the last reading of the row
	versions bitset        // versions of acknowledged increments, which must be unique
	sent     writes        // with -history
	history  history
}

// newAccount returns an account whose counter continues from the value of its column.
func newAccount(n name) *account {
	return &account{name: n, newest: reading{value: n.start}, row: reading{value: n.start}}
}

// window is the certain state when a request was sent. Its answer must not be older.
type window struct {
	certain sums
	newest  reading
	valued  time.Duration
}

// open starts a read.
func (a *account) open() window {
	a.mu.Lock()
	defer a.mu.Unlock()
	return window{certain: a.acked, newest: a.newest, valued: a.valued}
}

// begin starts an increment.
func (a *account) begin(by int64) window {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.begun = a.begun.plus(by)
	return window{certain: a.acked, newest: a.newest}
}

// read ends a read. It returns a problem of the answer, or "".
func (a *account) read(w window, r reading) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.weak {
		return a.bounds(window{}).check(r)
	}
	problem := a.bounds(w).check(r)
	if problem == "" {
		problem = a.see(r)
	}
	return problem
}

// keep keeps a write until the end, to compare it with the records.
func (a *account) keep(w write) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent = append(a.sent, w)
}

// settle ends an increment. r is nil for an answer without a value. settle returns a problem of the answer, or "".
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
	w.newest.version++ // an increment gets a new version
	if problem := a.bounds(w).check(*r); problem != "" {
		return problem
	}
	if r.version != unversioned && !a.versions.add(r.version) {
		return fmt.Sprintf("version %d, which another acknowledged increment has too", r.version)
	}
	a.valued = max(a.valued, sent)
	return a.see(*r)
}

// see records an answered reading. All readings of one version must have the same value. The lock must be held.
func (a *account) see(r reading) string {
	if r.version == a.newest.version && r != a.newest {
		return fmt.Sprintf("value %d with version %d, which had value %d", r.value, r.version, a.newest.value)
	}
	if r.version > a.newest.version {
		a.newest = r
	}
	return ""
}

// checkRow records a reading of the row under load. The row may be old, but it must not go back, and its value must be one that the
// counter has had.
func (a *account) checkRow(r reading) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.row
	a.row = r
	possible := a.begun.minus(a.refused)
	switch {
	case r.version < before.version:
		return fmt.Sprintf("version %d after version %d: the row has gone back", r.version, before.version)
	case r.version == before.version && r != before:
		return fmt.Sprintf("value %d with version %d, which had value %d", r.value, r.version, before.value)
	case r.version > possible.count:
		return fmt.Sprintf("version %d, but at most %d operations can be applied: some are counted twice", r.version, possible.count)
	case r.version == a.newest.version && r != a.newest && !a.weak:
		return fmt.Sprintf("value %d with version %d, which was answered with value %d", r.value, r.version, a.newest.value)
	}
	return ""
}

// bounds returns the bounds of an answer to a request. The lock must be held.
func (a *account) bounds(w window) bounds {
	b := newBounds(w.certain, a.begun.minus(a.refused))
	b.low.value, b.high.value = b.low.value+a.start, b.high.value+a.start
	b.low.version = max(b.low.version, w.newest.version)
	return b
}

// final returns the bounds of the row at the end, and the acknowledged sums. No request may be in flight.
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

// bitset is a set of small integers.
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

// ledger holds all accounts, and counts the answers.
type ledger struct {
	started  time.Time
	accounts []*account
	late     []*account // come into use during the run
	reasons  *tally     // answers by reason
	forms    *tally     // commands over the Redis protocol by form and outcome
	outcomes *tally     // operations by kind and outcome, such as "increment 1"
	findings *findings
	weak     bool // see account
	recorded bool // all counters have a history, so the writes of each are kept; see recorded.go

	requests atomic.Uint32 // the number of the last request

	// down is the start of the outage of Postgres, since started; 0 while there is none. See outage.go.
	down atomic.Int64
}

// enter counts an operation by its answer.
func (l *ledger) enter(kind string, a answer) {
	o := a.outcome
	if kind == kindRead && a.missing { // a valid answer
		o = acknowledged
	}
	l.outcomes.add(outcomeKey(kind, o))
	if kind == kindRead {
		l.reasons.add("read: " + a.reason)
	} else {
		l.reasons.add(a.reason)
	}
}

// The kinds of operations in the report.
const (
	kindIncrement = "increment"
	kindSet       = "set"
	kindDelete    = "delete"
	kindRead      = "read"
	kindWarmRead  = "warm read" // a read that must succeed without Postgres
)

func outcomeKey(kind string, o outcome) string { return fmt.Sprintf("%s %d", kind, o) }

// writes counts the writes with an outcome.
func (l *ledger) writes(o outcome) int64 {
	var sum int64
	for _, kind := range []string{kindIncrement, kindSet, kindDelete} {
		sum += l.outcomes.sum(outcomeKey(kind, o))
	}
	return sum
}

// newLedger returns a ledger of accounts whose keys are in use at once, and of half as many whose keys come into use during the run.
func newLedger(keys int, weak bool) *ledger {
	l := &ledger{weak: weak, started: time.Now(), reasons: newTally(), forms: newTally(), outcomes: newTally(), findings: &findings{}}
	for i := range keys + keys/2 {
		a := newAccount(newName(i, fmt.Sprintf("hits/é %03d", i)))
		a.weak = weak
		l.accounts = append(l.accounts, a)
	}
	l.accounts, l.late = l.accounts[:keys], l.accounts[keys:]
	return l
}

// all returns all accounts.
func (l *ledger) all() []*account { return slices.Concat(l.accounts, l.late) }

// since returns the time since the start of the run.
func (l *ledger) since() time.Duration { return time.Since(l.started) }
