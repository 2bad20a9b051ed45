package main

import (
	"sync"
	"time"
)

// ack is an acknowledged write.
type ack struct{ sent, answered time.Time }

// firstAPI is the api whose answers are timed. A second one is only there to write to a master that is cut off.
const firstAPI = 0

// account records all answers about one key.
type account struct {
	key   string
	shard int

	mu      sync.Mutex
	acks    []ack // of the first api
	others  int64 // acknowledged by another api
	unknown int64 // may be applied or not
}

func (a *account) acknowledge(api int, sent time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if api != firstAPI {
		a.others++
		return
	}
	a.acks = append(a.acks, ack{sent: sent, answered: time.Now()})
}

func (a *account) leaveOpen() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unknown++
}

// firstAfter returns when the first acknowledged write was answered that was sent at a time or later. ok is false if there is none.
func (a *account) firstAfter(t time.Time) (answered time.Time, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// A search from the end is short, because it is repeated until the first one is found.
	for i := len(a.acks) - 1; i >= 0 && !a.acks[i].sent.Before(t); i-- {
		answered, ok = a.acks[i].answered, true
	}
	return answered, ok
}

// longestGap returns the longest time without an acknowledged write between two times.
func (a *account) longestGap(from, to time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	var longest time.Duration
	last := from
	for _, k := range a.acks {
		if k.answered.Before(from) || k.answered.After(to) {
			continue
		}
		longest = max(longest, k.answered.Sub(last))
		last = k.answered
	}
	return max(longest, to.Sub(last))
}

// compare returns the number of acknowledged writes that a row lacks, and that of writes beyond all that can be applied.
func (a *account) compare(value int64) (lost, double int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	acked := int64(len(a.acks)) + a.others
	return max(0, acked-value), max(0, value-acked-a.unknown)
}

// ledger holds the accounts of a run, and counts the answers.
type ledger struct {
	accounts []*account

	mu      sync.Mutex
	reasons map[string]int64
	late    map[int]int64 // acknowledged writes during the fault, by api
	fault   time.Time     // the zero time before the fault
}

func (l *ledger) count(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reasons[reason]++
}

// acknowledged counts an acknowledged write to an api, for the apis of a partition.
func (l *ledger) acknowledged(api int, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.fault.IsZero() && sent.After(l.fault) {
		l.late[api]++
	}
}

func (l *ledger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = time.Now()
}

// sums returns the acknowledged and the unknown writes of all keys.
func (l *ledger) sums() (acked, unknown int64) {
	for _, a := range l.accounts {
		a.mu.Lock()
		acked += int64(len(a.acks)) + a.others
		unknown += a.unknown
		a.mu.Unlock()
	}
	return acked, unknown
}

// longestGap returns the longest gap of all keys.
func (l *ledger) longestGap(from, to time.Time) time.Duration {
	var longest time.Duration
	for _, a := range l.accounts {
		longest = max(longest, a.longestGap(from, to))
	}
	return longest
}
