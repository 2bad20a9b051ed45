package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// event is an operation on a key with its answer.
type event struct {
	sent, answered time.Duration // since the start of the run
	what           string
	server         string
	answer         answer
}

func (e event) String() string {
	return fmt.Sprintf("%9.3fs to %9.3fs  %-6s %-16s %s", e.sent.Seconds(), e.answered.Seconds(), e.server, e.what, e.answer)
}

// historySize is the number of events kept for each key.
const historySize = 24

// history holds the last events of a key.
type history struct {
	events []event // a ring buffer once it has historySize events
	total  int
}

func (h *history) add(e event) {
	if len(h.events) < historySize {
		h.events = append(h.events, e)
	} else {
		h.events[h.total%historySize] = e
	}
	h.total++
}

// lines returns the events, the oldest first.
func (h *history) lines() []string {
	var lines []string
	for i := max(0, h.total-historySize); i < h.total; i++ {
		lines = append(lines, h.events[i%historySize].String())
	}
	return lines
}

// finding is a violation of a guarantee.
type finding struct {
	key     string
	problem string
	events  []string
}

// findingsKept is the number of findings printed in full. Most bugs affect many keys in the same way.
const findingsKept = 10

// findings collects the violations of a run. It is safe for concurrent use.
type findings struct {
	mu    sync.Mutex
	kept  []finding
	total int
}

func (f *findings) add(key, problem string, events []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total++
	if len(f.kept) < findingsKept {
		f.kept = append(f.kept, finding{key: key, problem: problem, events: events})
	}
}

func (f *findings) all() (kept []finding, total int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.kept), f.total
}

func (f *findings) none() bool {
	_, total := f.all()
	return total == 0
}

// tally counts by name. It is safe for concurrent use.
type tally struct {
	mu     sync.Mutex
	counts map[string]int64
}

func newTally() *tally { return &tally{counts: make(map[string]int64)} }

func (t *tally) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[name]++
}

// sum adds up the counts of all names with the prefix.
func (t *tally) sum(prefix string) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var sum int64
	for name, n := range t.counts {
		if strings.HasPrefix(name, prefix) {
			sum += n
		}
	}
	return sum
}

// String lists the counts by name.
func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	parts := make([]string, 0, len(t.counts))
	for name, n := range t.counts {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
