package cache

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Conflict is an entry whose row has writes that the entry lacks: this Redis has lost its latest writes.
type Conflict struct {
	Entry Entry // as it was read
	Row   counter.Row

	// Adopt: the row is a later state of the same lineage, so it replaces the entry, which becomes clean. Otherwise the writes of the
	// entry's lineage are added to the row, and the key stays dirty.
	Adopt bool
}

// Reconciliation is the result of Reconcile for one Conflict.
type Reconciliation byte

// The results of Reconcile.
const (
	Reconciled       Reconciliation = 'y'
	Superseded       Reconciliation = 'w' // the entry has changed since it was read; nothing was done
	ConflictOverflow Reconciliation = 'o' // the sum of row and unsynced increments does not fit into 64 bits; nothing was done
)

// MaxConflicts bounds one call of Reconcile.
const MaxConflicts = 200

// Reconcile repairs up to MaxConflicts entries of one shard in one atomic step, and returns one result for each. It may be repeated: it
// leaves entries alone that have changed.
func (c *Cache) Reconcile(ctx context.Context, shard counter.Shard, conflicts []Conflict) ([]Reconciliation, error) {
	if len(conflicts) == 0 {
		return nil, nil
	}
	keys := []string{c.metaKey(shard), c.openKey(shard), c.sealedKey(shard), c.retryKey(shard), c.deadKey(shard)}
	args := append(make([]any, 0, 1+8*len(conflicts)), ms(c.cleanTTL))
	for i := range conflicts {
		e, row := &conflicts[i].Entry, &conflicts[i].Row
		what, deleted := "m", "0"
		if conflicts[i].Adopt {
			what = "a"
		}
		if row.Deleted {
			deleted = "1"
		}
		keys = append(keys, c.entryKey(e.Key))
		args = append(args, string(e.Key), what, formatID(e.Lineage), itoa(e.Base), itoa(row.Value), itoa(row.Version), deleted,
			itoa(row.Lineage))
	}
	reply, err := reconcileScript.Run(ctx, c.client, keys, args...).Text()
	if err == nil && len(reply) != len(conflicts) {
		err = fmt.Errorf("redis answered for %d", len(reply))
	}
	if err != nil {
		return nil, fmt.Errorf("reconcile %d keys of shard %s: %w", len(conflicts), shard, err)
	}
	return []Reconciliation(reply), nil
}
