// Package catalog lists counters by key, and by value. Postgres says which counters there are, and Redis has their present values.
//
// A listed counter is not hydrated: otherwise a list of a million cold counters would fill Redis. So a page
//
//  1. reads the tokens of all shards,
//  2. reads its rows from Postgres,
//  3. reads the entries of its keys, and takes the row of a key without an entry.
//
// A key without an entry is clean. Its row is current if the token of its shard is still the same: then no write of the shard has
// reached Postgres, and none of its dirty entries has been evicted, since before the row was read. Otherwise the row is read again.
//
// If Redis has lost its latest writes, a clean entry may be older than its row. The newer of the two is shown; the next use of the counter
// repairs the entry.
//
// A counter that is only in Redis, because it has never been flushed, is not listed.
package catalog

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// MaxPage bounds the counters of one page.
const MaxPage = store.MaxListed

// Rows is the part of *store.Store that a Catalog needs.
type Rows interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
	List(ctx context.Context, prefix string, after counter.Key, limit int) (rows []counter.Row, more bool, err error)
	Top(ctx context.Context, prefix string, n int) (keys []counter.Key, complete bool, err error)
	TopIndexState(ctx context.Context) (store.IndexState, error)
	Operations(ctx context.Context, key counter.Key, span store.Span) ([]counter.Record, error)
	Latest(ctx context.Context, key counter.Key, limit int) ([]counter.Record, error)
	StateAt(ctx context.Context, key counter.Key, at time.Time) (store.Past, error)
}

// Counters reads the counters whose base is unknown. *writepath.Service implements it.
type Counters interface {
	Do(ctx context.Context, ops []counter.Operation, options writepath.Options) []counter.Result
}

// Options are the dependencies of a Catalog. The caller closes them.
type Options struct {
	Cache    *cache.Cache
	Store    Rows
	Counters Counters
	// TopEnabled permits Top.
	TopEnabled bool
}

// Catalog lists counters. It is safe for concurrent use.
type Catalog struct {
	Options

	gate gate
}

// New returns a Catalog.
func New(o Options) *Catalog { return &Catalog{Options: o, gate: newGate(maxRunning, maxWaiting)} }

// Page is a page of a list. A counter that cannot be read has an Err in its Result, which is a *counter.Error; deleted counters are left
// out. So it may have fewer counters than its limit, or none, although others follow.
type Page struct {
	Results []counter.Result
	Next    counter.Key // the last key of the page, to pass as after; "" on the last page
}

// List returns the counters whose keys begin with prefix and are greater than after, in bytewise order of their keys. It reads up to limit
// rows, 1 to MaxPage. Every error is a *counter.Error. It blocks for a bounded time: for a slot, for Redis and for Postgres.
func (c *Catalog) List(ctx context.Context, prefix string, after counter.Key, limit int) (Page, error) {
	leave, err := c.gate.enter(ctx)
	if err != nil {
		return Page{}, err
	}
	defer leave()
	tokens, err := c.Cache.Tokens(ctx)
	if err != nil {
		return Page{}, redisError(err)
	}
	rows, more, err := c.Store.List(ctx, prefix, after, limit)
	if err != nil {
		return Page{}, postgresError(err)
	}
	var page Page
	if more {
		page.Next = rows[len(rows)-1].Key
	}
	page.Results, err = c.present(ctx, rows, tokens)
	return page, err
}

// present returns the present state of each row's counter, without deleted ones. tokens are from before the rows were read; nil if rows
// have only keys.
func (c *Catalog) present(ctx context.Context, rows []counter.Row, tokens []string) ([]counter.Result, error) {
	keys := make([]counter.Key, len(rows))
	for i, r := range rows {
		keys[i] = r.Key
	}
	peeked, err := c.Cache.Peek(ctx, keys)
	if err != nil {
		return nil, redisError(err)
	}
	results := make([]counter.Result, len(rows))
	var again, blind []counter.Key
	for i, p := range peeked {
		switch {
		case p.Corrupt:
			results[i].Err = &counter.Error{Code: counter.CodeInternal, Err: errCorrupt}
		case p.BaseUnknown:
			blind = append(blind, p.Key)
		case !p.Missing && p.Dirty(p.Watermark):
			results[i].Counter = stateOf(p.Row, false)
		case !p.Missing:
			results[i].Counter = stateOf(newer(p.Row, rows[i]), true)
			if tokens == nil {
				again = append(again, p.Key)
			}
		case tokens != nil && tokens[c.Cache.Shard(p.Key)] == p.Token:
			results[i].Counter = stateOf(rows[i], true)
		default:
			again = append(again, p.Key)
		}
		results[i].Counter.Key = p.Key
	}
	if err := c.readAgain(ctx, again, results); err != nil {
		return nil, err
	}
	c.readBlind(ctx, blind, results)
	return slices.DeleteFunc(results, func(r counter.Result) bool { return r.Err == nil && !r.Counter.Exists }), nil
}

var errCorrupt = errors.New("the entry in redis is corrupt: something else wrote to its key")

func newer(entry, row counter.Row) counter.Row {
	if row.Version > entry.Version {
		return row
	}
	return entry
}

func stateOf(row counter.Row, synced bool) counter.Counter {
	return counter.Counter{Key: row.Key, Value: row.Value, Version: row.Version, Exists: !row.Deleted, Synced: synced, Known: true}
}

// readAgain reads the rows of keys whose entries are missing or clean. A key without entry and row does not exist.
func (c *Catalog) readAgain(ctx context.Context, keys []counter.Key, results []counter.Result) error {
	if len(keys) == 0 {
		return nil
	}
	rows, err := c.Store.Read(ctx, keys)
	if err != nil {
		return postgresError(err)
	}
	each(results, keys, func(r *counter.Result) {
		row, found := rows[r.Counter.Key]
		if found && (!r.Counter.Known || row.Version > r.Counter.Version) {
			r.Counter = stateOf(row, true)
		}
	})
	return nil
}

// readBlind reads counters whose entries need their base, through the write path, which adds it. These entries exist already, so this
// does not fill Redis.
func (c *Catalog) readBlind(ctx context.Context, keys []counter.Key, results []counter.Result) {
	if len(keys) == 0 {
		return
	}
	ops := make([]counter.Operation, len(keys))
	for i, key := range keys {
		ops[i] = counter.Operation{Key: key, Kind: counter.Get}
	}
	read := c.Counters.Do(ctx, ops, writepath.Options{})
	each(results, keys, func(r *counter.Result) {
		key := r.Counter.Key
		*r, read = read[0], read[1:]
		r.Counter.Key = key
	})
}

// each calls change with the results of keys, which have the order of results.
func each(results []counter.Result, keys []counter.Key, change func(r *counter.Result)) {
	for i := range results {
		if len(keys) > 0 && results[i].Counter.Key == keys[0] {
			keys = keys[1:]
			change(&results[i])
		}
	}
}

// retryAfter is the Retry-After of lists that are not answered now.
const retryAfter = time.Second

func redisError(err error) error {
	explained := cache.Unapplied(err)
	explained.Detail = "Redis did not answer"
	return explained
}

func postgresError(err error) error {
	return &counter.Error{
		Code: counter.CodeDatabaseUnavailable, Err: err, RetryAfter: retryAfter,
		Detail: "Postgres, which has the list of counters, did not answer",
	}
}
