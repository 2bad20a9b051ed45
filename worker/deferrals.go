package worker

import (
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// shortestDeferral is for how long an entry is put off whose row somebody else holds locked, the first time; it doubles
	// each time that this is so again, up to longestDeferral.
	shortestDeferral = 250 * time.Millisecond
	longestDeferral  = 5 * time.Second

	// deferralMemory is how long a worker remembers that it put an entry off, and maxDeferrals how many of them. One that is
	// forgotten begins anew.
	deferralMemory = 2 * longestDeferral
	maxDeferrals   = 10_000
)

// deferrals remembers which keys were put off lately. It is safe for concurrent use.
type deferrals struct {
	mu   sync.Mutex
	keys map[counter.Key]deferral
}

type deferral struct {
	delay time.Duration // the last
	at    time.Time
	slow  bool // it took longer than the statement timeout
}

func newDeferrals() *deferrals { return &deferrals{keys: make(map[counter.Key]deferral)} }

// next returns for how long each of the entries is to be put off now. slow: they took longer than the statement timeout.
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

// remember needs mu. When there is no room it forgets what is old, and else everything.
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

// split parts entries by whether they took longer than the statement timeout when they were flushed last.
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

// forget forgets entries that Postgres has taken.
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
