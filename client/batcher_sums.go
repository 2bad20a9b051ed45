package client

import (
	"crypto/rand"
	"strconv"
	"time"
)

// maxListed bounds the refused sums that a Flush lists.
const maxListed = 1000

// entry holds the sums of one key: an open one, which takes increments, and at most one that was sent and is not acknowledged. A later
// sum of the key waits for that, so an outage does not pile up sums.
type entry struct {
	key     string
	open    int64
	openGen uint64 // the generation of the open sum's first increment; 0: there is no open sum

	sent    int64
	sentGen uint64 // 0: there is no sent sum
	id      string
	err     error     // of the last attempt
	doubt   time.Time // when an attempt had an unknown outcome for the first time; zero: never
}

// left returns the sums of an entry.
func (e *entry) left() []Sum {
	var left []Sum
	if e.sentGen != 0 {
		left = append(left, e.sum())
	}
	if e.openGen != 0 && e.open != 0 {
		left = append(left, Sum{Key: e.key, By: e.open, Applied: AppliedNo})
	}
	return left
}

// sum returns the sent sum.
func (e *entry) sum() Sum {
	s := Sum{Key: e.key, By: e.sent, ID: e.id, Err: e.err, Applied: AppliedNo}
	if !e.doubt.IsZero() {
		s.Applied = AppliedUnknown
	}
	return s
}

// sums holds all sums of a Batcher. Its mutex guards them.
//
// Each sum belongs to the generation in which its first increment came, and each waiter begins a new one: what a waiter waits for are the
// sums of its own and earlier generations.
type sums struct {
	keys  map[string]*entry
	ready []*entry // with an open sum and no sent one, oldest first
	due   int      // how many of ready shall be sent now
	retry []*entry // with a sent sum that failed, oldest first

	generation uint64
	pending    map[uint64]int // the number of sums of each generation
	waiters    map[*waiter]struct{}
}

// waiter is a Flush or a Close in progress.
type waiter struct {
	generation uint64
	done       chan struct{}
	refused    []Sum
	more       int
}

func newSums() sums {
	return sums{keys: make(map[string]*entry), generation: 1, pending: make(map[uint64]int), waiters: make(map[*waiter]struct{})}
}

// insert makes the entry of a new key.
func (s *sums) insert(key string) *entry {
	e := &entry{key: key}
	s.keys[key] = e
	return e
}

// add adds to the open sum of an entry.
func (s *sums) add(e *entry, by int64) {
	if e.openGen == 0 {
		e.openGen = s.generation
		s.pending[s.generation]++
		if e.sentGen == 0 {
			s.ready = append(s.ready, e)
		}
	}
	e.open += by
}

// wait begins a generation, and returns the waiter for those before it.
func (s *sums) wait() *waiter {
	w := &waiter{generation: s.generation, done: make(chan struct{})}
	s.waiters[w] = struct{}{}
	s.generation++
	s.due = len(s.ready)
	s.wakeWaiters()
	return w
}

func (s *sums) forget(w *waiter) { delete(s.waiters, w) }

// settled notes that a sum of the generation is acknowledged or given up.
func (s *sums) settled(generation uint64) {
	if s.pending[generation]--; s.pending[generation] == 0 {
		delete(s.pending, generation)
		s.wakeWaiters()
	}
}

// wakeWaiters ends the waiters that wait for nothing any more.
func (s *sums) wakeWaiters() {
	for w := range s.waiters {
		waits := false
		for generation := range s.pending {
			waits = waits || generation <= w.generation
		}
		if !waits {
			close(w.done)
			delete(s.waiters, w)
		}
	}
}

func (w *waiter) err() error {
	if len(w.refused) == 0 {
		return nil
	}
	return &SumsError{Sums: w.refused, More: w.more}
}

// take gives the open sums of up to limit due entries an ID and returns the entries. It drops sums of 0.
func (s *sums) take(limit int) []*entry {
	taken := make([]*entry, 0, min(limit, s.due))
	id := rand.Text() + "-" // 128 random bits for all of them
	for s.due > 0 && len(taken) < limit {
		e := s.ready[0]
		s.ready[0] = nil // for the garbage collector
		s.ready, s.due = s.ready[1:], s.due-1
		if e.open == 0 {
			s.settled(e.openGen)
			delete(s.keys, e.key)
			continue
		}
		e.sent, e.sentGen, e.id = e.open, e.openGen, id+strconv.Itoa(len(taken))
		e.open, e.openGen = 0, 0
		taken = append(taken, e)
	}
	return taken
}

// again takes up to limit entries to be repeated.
func (s *sums) again(limit int) []*entry {
	n := min(limit, len(s.retry))
	taken := s.retry[:n:n]
	s.retry = s.retry[n:]
	return taken
}

// done ends the sent sum of an entry. The open one, if any, may be sent now; a waiter may wait for it.
func (s *sums) done(e *entry) {
	generation := e.sentGen
	e.sent, e.sentGen, e.id, e.err, e.doubt = 0, 0, "", nil, time.Time{}
	if e.openGen == 0 {
		delete(s.keys, e.key)
	} else {
		s.ready = append(s.ready, e)
		if len(s.waiters) > 0 {
			s.due = len(s.ready)
		}
	}
	s.settled(generation)
}

// refuse ends the sent sum of an entry, and notes it for those that wait for it.
func (s *sums) refuse(e *entry) {
	for w := range s.waiters {
		switch {
		case e.sentGen > w.generation:
		case len(w.refused) < maxListed:
			w.refused = append(w.refused, e.sum())
		default:
			w.more++
		}
	}
	s.done(e)
}
