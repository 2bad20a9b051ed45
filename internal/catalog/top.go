package catalog

import (
	"cmp"
	"context"
	"slices"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// MaxTop bounds the counters of one Top.
const MaxTop = store.MaxTop

// Top is the answer to a question for the largest counters.
type Top struct {
	Results []counter.Result // as in Page, largest first
	// Complete is false if a bounded number of rows was not enough: see store.Top. Then Results has fewer counters than were asked for.
	Complete bool
}

// Top returns the n largest counters whose keys begin with prefix, largest first and then in bytewise order of their keys. Postgres
// decides which these are, so a counter that has just become large is missing until it is flushed. The values and their order are the
// present ones. If some of them have just been deleted, there are fewer. Every error is a *counter.Error: CodeNotFound says how to
// enable Top. It blocks for a bounded time, as List does.
func (c *Catalog) Top(ctx context.Context, prefix string, n int) (Top, error) {
	if !c.TopEnabled {
		return Top{}, &counter.Error{
			Code:   counter.CodeNotFound,
			Detail: "this needs an index that makes flushes slower: set AFTERWRITE_TOP=true for `afterwrite migrate` and the api",
		}
	}
	leave, err := c.gate.enter(ctx)
	if err != nil {
		return Top{}, err
	}
	defer leave()
	state, err := c.Store.TopIndexState(ctx)
	if err != nil {
		return Top{}, postgresError(err)
	}
	if state != store.IndexReady {
		return Top{}, &counter.Error{
			Code:   counter.CodeNotFound,
			Detail: "the index " + store.TopIndex + " is " + string(state) + ": run `afterwrite migrate` with AFTERWRITE_TOP=true",
		}
	}
	keys, complete, err := c.Store.Top(ctx, prefix, n)
	if err != nil {
		return Top{}, postgresError(err)
	}
	rows := make([]counter.Row, len(keys))
	for i, key := range keys {
		rows[i].Key = key
	}
	results, err := c.present(ctx, rows, nil)
	slices.SortFunc(results, byValue)
	return Top{Results: results, Complete: complete}, err
}

// byValue orders results by value, descending, then by key. Counters that could not be read are last.
func byValue(a, b counter.Result) int {
	switch {
	case a.Err == nil && b.Err == nil:
		return cmp.Or(cmp.Compare(b.Counter.Value, a.Counter.Value), cmp.Compare(a.Counter.Key, b.Counter.Key))
	case a.Err == nil:
		return -1
	case b.Err == nil:
		return 1
	}
	return cmp.Compare(a.Counter.Key, b.Counter.Key)
}
