package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxFlights is how many queries of a Loader run at once: the second keeps Postgres busy while the first one's answer
	// travels. More would only make the batches smaller.
	maxFlights = 2
	// maxFlightKeys bounds the keys of one query, so that one big request does not make the small ones wait for long.
	maxFlightKeys = 1_000
	// maxQueuedKeys bounds what waits: at a thousand keys in some milliseconds it is as much as can be read within the
	// 100 ms that a caller waits.
	maxQueuedKeys = 10_000
)

// Reader is what a Loader reads from: a *Store.
type Reader interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
}

// Loader shares reads among concurrent callers: the keys that are asked for while queries are under way are read together
// by the next one. A query always starts after the calls that it answers. Its methods may be called concurrently.
type Loader struct {
	reader Reader
	bound  time.Duration
	ctx    context.Context //nolint:containedctx // its end is Close's
	cancel context.CancelFunc
	flying sync.WaitGroup

	mu      sync.Mutex
	queue   []*flight // those that wait, in order; only the last takes further keys
	queued  int       // keys in queue
	flights int       // queries under way
	closed  bool
}

// NewLoader returns a Loader whose callers, and whose queries, wait for bound at most. Close it when it is not used any more.
func NewLoader(reader Reader, bound time.Duration) *Loader {
	ctx, cancel := context.WithCancel(context.Background())
	return &Loader{reader: reader, bound: bound, ctx: ctx, cancel: cancel}
}

// Read returns what Store.Read returns. It blocks until the rows are there, ctx is done, or the Loader's bound has passed
// (context.DeadlineExceeded). Where 10,000 keys wait already, or the Loader is closed, it returns ErrUnavailable at once.
func (l *Loader) Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error) {
	ctx, cancel := context.WithTimeout(ctx, l.bound)
	defer cancel()
	flights, err := l.join(keys)
	if err != nil {
		return nil, err
	}
	defer l.leave(flights)
	for _, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait to read %d rows: %w", len(keys), ctx.Err())
		}
		if f.err != nil {
			return nil, f.err
		}
	}
	rows := make(map[counter.Key]counter.Row, len(keys))
	for _, f := range flights {
		for _, key := range keys {
			if row, ok := f.rows[key]; ok {
				rows[key] = row
			}
		}
	}
	return rows, nil
}

// Close ends the queries that are under way, fails what waits, and blocks until both are done. Later reads fail.
func (l *Loader) Close() {
	l.mu.Lock()
	l.closed = true
	for _, f := range l.queue {
		f.finish(nil, errLoaderClosed)
	}
	l.queue, l.queued = nil, 0
	l.mu.Unlock()
	l.cancel()
	l.flying.Wait()
}

var errLoaderClosed = fmt.Errorf("%w: the process is shutting down", ErrUnavailable)

// join puts keys on the queries that will read them.
func (l *Loader) join(keys []counter.Key) ([]*flight, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errLoaderClosed
	}
	if l.queued+len(keys) > maxQueuedKeys {
		return nil, fmt.Errorf("%w: %d keys wait to be read already", ErrUnavailable, l.queued)
	}
	var flights []*flight
	for _, key := range keys {
		f := l.boarding()
		if f.add(key) {
			l.queued++
		}
		if len(flights) == 0 || flights[len(flights)-1] != f {
			f.waiters++
			flights = append(flights, f)
		}
	}
	l.start()
	return flights, nil
}

// boarding returns the query that takes further keys.
func (l *Loader) boarding() *flight {
	if n := len(l.queue); n > 0 && len(l.queue[n-1].keys) < maxFlightKeys {
		return l.queue[n-1]
	}
	f := newFlight()
	l.queue = append(l.queue, f)
	return f
}

// leave takes a caller off the queries: one that nobody waits for any more is not made.
func (l *Loader) leave(flights []*flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range flights {
		f.waiters--
	}
}

// start makes the queries that wait, as far as maxFlights permits.
func (l *Loader) start() {
	for l.flights < maxFlights && len(l.queue) > 0 {
		f := l.queue[0]
		l.queue[0] = nil
		l.queue = l.queue[1:]
		l.queued -= len(f.keys)
		if f.waiters == 0 {
			continue
		}
		l.flights++
		l.flying.Go(func() { l.fly(f) })
	}
}

// fly makes one query.
func (l *Loader) fly(f *flight) {
	ctx, cancel := context.WithTimeout(l.ctx, l.bound)
	defer cancel()
	rows, err := l.reader.Read(ctx, f.keys)
	if err != nil && l.ctx.Err() != nil {
		err = errLoaderClosed
	}
	f.finish(rows, err)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.flights--
	l.start()
}
