package catalog

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// MaxHistory bounds the operations of one part of a history.
const MaxHistory = 1000

// Recorded is one operation in the history of a counter.
type Recorded struct {
	counter.Record

	Synced bool // Postgres has it
}

// History is a part of the history of a counter, in order.
type History struct {
	Operations []Recorded
	More       bool // later operations follow
}

// Recording reports whether some counters have a history.
func (c *Catalog) Recording() bool { return c.Cache.HasHistory() }

// Recorded reports whether the counter has a history.
func (c *Catalog) Recorded(key counter.Key) bool { return c.Cache.Recorded(key) }

// History returns the operations that span selects, at most MaxHistory: those that Postgres has, and then those that only Redis has. Every
// error is a *counter.Error. It blocks for a bounded time: for a slot, for Redis and for Postgres.
func (c *Catalog) History(ctx context.Context, key counter.Key, span store.Span) (History, error) {
	leave, err := c.gate.enter(ctx)
	if err != nil {
		return History{}, err
	}
	defer leave()
	limit := min(span.Limit, MaxHistory)
	span.Limit = limit + 1
	pending, synced, err := c.records(ctx, key, func() ([]counter.Record, error) { return c.Store.Operations(ctx, key, span) })
	if err != nil {
		return History{}, err
	}
	var h History
	last := span.After
	for _, r := range synced {
		h.Operations, last = append(h.Operations, Recorded{Record: r, Synced: true}), r.Version
	}
	for _, r := range pending {
		if r.Version > last && !r.At.Before(span.From) && (span.To.IsZero() || r.At.Before(span.To)) {
			h.Operations = append(h.Operations, Recorded{Record: r})
		}
	}
	if h.More = len(h.Operations) > limit; h.More {
		h.Operations = h.Operations[:limit]
	}
	return h, nil
}

// Latest returns the last operations on a counter, at most limit, which is 1 to MaxHistory. Every error is a *counter.Error. It blocks for
// a bounded time: for a slot, for Redis and for Postgres.
func (c *Catalog) Latest(ctx context.Context, key counter.Key, limit int) ([]Recorded, error) {
	leave, err := c.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	pending, synced, err := c.records(ctx, key, func() ([]counter.Record, error) { return c.Store.Latest(ctx, key, limit) })
	if err != nil {
		return nil, err
	}
	var all []Recorded
	last := int64(0)
	for _, r := range synced {
		all, last = append(all, Recorded{Record: r, Synced: true}), r.Version
	}
	for _, r := range pending {
		if r.Version > last {
			all = append(all, Recorded{Record: r})
		}
	}
	return all[max(0, len(all)-limit):], nil
}

// records returns the records of key that only Redis has, and the result of read, which reads records in Postgres. It asks Redis first:
// what a flush moves to Postgres meanwhile is in both results, with the same version.
func (c *Catalog) records(
	ctx context.Context, key counter.Key, read func() ([]counter.Record, error),
) (pending, synced []counter.Record, err error) {
	entry, err := c.pendingOnBase(ctx, key)
	if err != nil {
		return nil, nil, err
	}
	if synced, err = read(); err != nil {
		return nil, nil, postgresError(err)
	}
	if entry.Records != nil {
		pending = entry.Records.All
	}
	return pending, synced, nil
}

// pending returns the entry of key and its records. Every error is a *counter.Error.
func (c *Catalog) pending(ctx context.Context, key counter.Key) (cache.Entry, error) {
	pending, err := c.Cache.Pending(ctx, key)
	switch {
	case err != nil:
		return pending, redisError(err)
	case pending.Corrupt:
		return pending, &counter.Error{Code: counter.CodeInternal, Err: errCorrupt}
	}
	return pending, nil
}
