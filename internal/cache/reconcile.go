package cache

import (
	"context"
	"fmt"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Conflict is an entry of which Postgres has more than Redis: it is of a Redis that lost its tail.
type Conflict struct {
	Entry Entry // as it was peeked
	Row   counter.Row

	// Adopt: Postgres's row is a later state of the very same writes, so it replaces the entry, which becomes clean. Else
	// what the entry's life has written goes on top of the row, and the key stays dirty, unless all of it was before the
	// restart, and is in the row.
	Adopt bool
}

// Reconciliation says what Reconcile did with one Conflict.
type Reconciliation byte

// What Reconcile may answer.
const (
	Reconciled       Reconciliation = 'y'
	Superseded       Reconciliation = 'w' // the entry has moved on since it was peeked: nothing changed
	ConflictOverflow Reconciliation = 'o' // row and unsynced operations do not add up to a 64-bit integer: nothing changed
)

// Reconcile mends entries of one shard, in one atomic step, and answers one letter for each. It may be done twice: the
// second time it finds that they have moved on.
func (c *Cache) Reconcile(ctx context.Context, shard counter.Shard, conflicts []Conflict) ([]Reconciliation, error) {
	if len(conflicts) == 0 {
		return nil, nil
	}
	keys := make([]string, 1, 1+len(conflicts))
	keys[0] = dirtyKey(shard)
	args := make([]any, 1, 1+7*len(conflicts))
	args[0] = ms(c.cleanTTL)
	for _, conflict := range conflicts {
		what, deleted := "m", "0"
		if conflict.Adopt {
			what = "a"
		}
		if conflict.Row.Deleted {
			deleted = "1"
		}
		keys = append(keys, c.entryKey(conflict.Entry.Key))
		args = append(args, what, conflict.Entry.Life, strconv.FormatInt(conflict.Entry.Base, 10),
			strconv.FormatInt(conflict.Row.Value, 10), strconv.FormatInt(conflict.Row.Version, 10), deleted,
			strconv.FormatInt(conflict.Row.Lineage, 10))
	}
	reply, err := reconcileScript.Run(ctx, c.client, keys, args...).Text()
	if err != nil {
		return nil, fmt.Errorf("reconcile %d keys of shard %s: %w", len(conflicts), shard, err)
	}
	if len(reply) != len(conflicts) {
		return nil, fmt.Errorf("reconcile %d keys: redis answered for %d", len(conflicts), len(reply))
	}
	return []Reconciliation(reply), nil
}
