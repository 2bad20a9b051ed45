package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// importSQL inserts counters for rows. It reads the column itself: what a reader saw before may be old. ON CONFLICT waits for a flush that
// is inserting the same counter. So a counter never gets a value from before a flush that has written the column.
//
// A row of version 0 was imported before and not flushed since, so the column may have been written by others. It gets the new value.
//
// The order of the keys is that of a flush, so the two cannot deadlock. OFFSET 0 makes the planner look up each row by an index.
const importSQL = `
INSERT INTO {counters} (key, value, version, deleted_at, updated_at, lineage, base)
SELECT batch.key, row.value, 0, NULL, now(), 0, 0
FROM unnest($1::text[]{arrays}) AS batch (key{names})
CROSS JOIN LATERAL (SELECT {value} AS value FROM {table} AS t WHERE {match} OFFSET 0) AS row
LEFT JOIN LATERAL (SELECT value, version FROM {counters} WHERE key = batch.key OFFSET 0) AS counter ON true
WHERE row.value <> 0 AND (counter.version IS NULL OR counter.version = 0 AND counter.value <> row.value)
ORDER BY batch.key COLLATE "C"
ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, updated_at = EXCLUDED.updated_at WHERE counters.version = 0`

// Import inserts counters with the values of the column, version 0 and no lineage. It leaves out counters that were ever written, and rows
// whose column is NULL or 0. A counter that was only imported gets the present value. Import returns the number of counters that it has
// written. A numeric column is rounded, and limited to 64 bits, as in Read. More than MaxBatch targets are ErrInvalid.
//
// It is safe while others write, and may be repeated. If others lock rows of counters, it tries again a few times.
func (c *Column) Import(ctx context.Context, targets []Target) (imported int64, err error) {
	if err := c.check(targets); err != nil || len(targets) == 0 {
		return 0, err
	}
	targets = slices.SortedFunc(slices.Values(targets), func(a, b Target) int { return cmp.Compare(a.Key, b.Key) })
	args := c.args(targets)
	what := fmt.Sprintf("import %d counters from %s", len(targets), c.mapping.ColumnName())
	for try := 1; ; try++ {
		err = c.guard(ctx, what, func(ctx context.Context) error {
			result, err := c.store.db.ExecContext(ctx, c.adopt, args...)
			if err != nil {
				return err
			}
			imported, err = result.RowsAffected()
			return err
		})
		if !isContended(err) || try == contendedTries || !sleep(ctx, contendedPause) {
			return imported, err
		}
	}
}
