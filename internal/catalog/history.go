package catalog

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// MaxHistory bounds the operations of one part of a history.
const MaxHistory = 1000

// Recorded is one operation in the history of a counter.
type Recorded struct {
	counter.Record

	Synced bool // Postgres has it
	// Numbered reports whether its Version is known. It is not while the counter's base is unknown.
	Numbered bool
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
	// Redis first: what a flush moves to Postgres meanwhile is found there.
	pending, err := c.Cache.Pending(ctx, key)
	switch {
	case err != nil:
		return History{}, redisError(err)
	case pending.Corrupt:
		return History{}, &counter.Error{Code: counter.CodeInternal, Err: errCorrupt}
	}
	limit := min(span.Limit, MaxHistory)
	span.Limit = limit + 1
	synced, err := c.Store.Operations(ctx, key, span)
	if err != nil {
		return History{}, postgresError(err)
	}
	var h History
	last := span.After
	for _, r := range synced {
		h.Operations, last = append(h.Operations, Recorded{Record: r, Synced: true, Numbered: true}), r.Version
	}
	if pending.Records != nil {
		for _, r := range pending.Records.All {
			during := !r.At.Before(span.From) && (span.To.IsZero() || r.At.Before(span.To))
			if during && (pending.BaseUnknown || r.Version > last) {
				h.Operations = append(h.Operations, Recorded{Record: r, Numbered: !pending.BaseUnknown})
			}
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
	pending, err := c.Cache.Pending(ctx, key) // before Postgres, as in History
	switch {
	case err != nil:
		return nil, redisError(err)
	case pending.Corrupt:
		return nil, &counter.Error{Code: counter.CodeInternal, Err: errCorrupt}
	}
	synced, err := c.Store.Latest(ctx, key, limit)
	if err != nil {
		return nil, postgresError(err)
	}
	var all []Recorded
	last := int64(0)
	for _, r := range synced {
		all, last = append(all, Recorded{Record: r, Synced: true, Numbered: true}), r.Version
	}
	if pending.Records != nil {
		for _, r := range pending.Records.All {
			if pending.BaseUnknown || r.Version > last {
				all = append(all, Recorded{Record: r, Numbered: !pending.BaseUnknown})
			}
		}
	}
	return all[max(0, len(all)-limit):], nil
}
