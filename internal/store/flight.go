package store

import "github.com/afterwrite/afterwrite/internal/counter"

// flight is one query of a Loader: first it takes keys, then it is under way, then it has an outcome. The Loader's lock
// guards all but the outcome, which is written once, before done is closed.
type flight struct {
	keys    []counter.Key // distinct
	known   map[counter.Key]struct{}
	waiters int // callers

	done chan struct{}
	rows map[counter.Key]counter.Row
	err  error
}

func newFlight() *flight {
	return &flight{known: make(map[counter.Key]struct{}), done: make(chan struct{})}
}

// add reports whether the key is new.
func (f *flight) add(key counter.Key) bool {
	if _, ok := f.known[key]; ok {
		return false
	}
	f.known[key] = struct{}{}
	f.keys = append(f.keys, key)
	return true
}

func (f *flight) finish(rows map[counter.Key]counter.Row, err error) {
	f.rows, f.err = rows, err
	close(f.done)
}
