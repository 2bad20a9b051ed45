package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxFlights is the number of concurrent queries of a Loader. The second keeps Postgres busy while the first result is on its
	// way. More queries would only make the batches smaller.
	maxFlights = 2
	// maxFlightKeys bounds the keys of one query, so that a large request delays small ones only briefly.
	maxFlightKeys = 1_000
	// maxQueuedKeys bounds the waiting keys. A query of 1,000 keys takes some milliseconds, so about 10,000 can be read within the
	// 100 ms that a caller waits.
	maxQueuedKeys = 10_000
)

// Reader reads rows for a Loader. *Store implements it.
type Reader interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
}

// Loader shares reads among concurrent callers: keys that are requested during a query are read together by the next query. A query
// starts after all the calls that it serves, so its rows are not older than the calls. It is safe for concurrent use.
type Loader struct {
	reader Reader
	bound  time.Duration
	ctx    context.Context //nolint:containedctx // canceled by Close
	cancel context.CancelFunc
	flying sync.WaitGroup

	mu      sync.Mutex
	queue   []*flight // waiting queries, in order; new keys join the last
	queued  int       // keys in queue
	flights int       // queries in progress
	closed  bool
}

// NewLoader returns a Loader. bound is the time limit for its callers and for its queries. Close it after use.
func NewLoader(reader Reader, bound time.Duration) *Loader {
	ctx, cancel := context.WithCancel(context.Background())
	return &Loader{reader: reader, bound: bound, ctx: ctx, cancel: cancel}
}

// Read is Store.Read through a shared query. It blocks until the rows are read, ctx is done, or the Loader's time limit is over
// (context.DeadlineExceeded). If more than 10,000 keys would wait, or the Loader is closed, it returns ErrUnavailable at once.
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
		if f.err != nil && Unread(f.err) == nil {
			return nil, f.err
		}
	}
	rows, partial := make(map[counter.Key]counter.Row, len(keys)), partialError{}
	for _, f := range flights {
		for _, key := range keys {
			if row, ok := f.rows[key]; ok {
				rows[key] = row
			}
		}
		if unread := Unread(f.err); slices.ContainsFunc(keys, func(key counter.Key) bool { return unread[key] }) {
			partial.add(f.err)
		}
	}
	if len(partial.failed) > 0 {
		return rows, &partial
	}
	return rows, nil
}

// Close cancels the queries in progress and fails the waiting calls. It blocks until the queries have ended. Later reads fail.
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

// join adds keys to waiting queries, and returns these.
func (l *Loader) join(keys []counter.Key) ([]*flight, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, errLoaderClosed
	}
	if l.queued+len(keys) > maxQueuedKeys {
		return nil, fmt.Errorf("%w: %d keys are waiting to be read", ErrUnavailable, l.queued)
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

// boarding returns the waiting query that the next key joins.
func (l *Loader) boarding() *flight {
	if n := len(l.queue); n > 0 && len(l.queue[n-1].keys) < maxFlightKeys {
		return l.queue[n-1]
	}
	f := newFlight()
	l.queue = append(l.queue, f)
	return f
}

// leave removes a caller from its queries. A query without callers is skipped.
func (l *Loader) leave(flights []*flight) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range flights {
		f.waiters--
	}
}

// start starts waiting queries, up to maxFlights.
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

// fly runs one query.
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

// flight is one query of a Loader: it collects keys, runs, and then has a result. The Loader's lock guards all fields but the result,
// which is written once, before done is closed.
type flight struct {
	keys    []counter.Key // distinct
	known   map[counter.Key]struct{}
	waiters int // callers that wait for the result

	done chan struct{}
	rows map[counter.Key]counter.Row
	err  error
}

func newFlight() *flight {
	return &flight{known: make(map[counter.Key]struct{}), done: make(chan struct{})}
}

// add adds key, and reports whether it is new.
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
