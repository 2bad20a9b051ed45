package store

import (
	"context"
	"fmt"
	"time"
)

// purgeSQL finds the oldest tombstones with the partial index on deleted_at, and deletes them by primary key. ARRAY() makes Postgres
// run the inner query once; with IN (SELECT ... LIMIT) it may run it for every row. SKIP LOCKED avoids waiting for a flush that
// replaces a tombstone, and for another purge.
const purgeSQL = `
DELETE FROM {schema}.counters WHERE key = ANY (ARRAY(
    SELECT key FROM {schema}.counters
    WHERE deleted_at IS NOT NULL AND deleted_at < now() - $1::bigint * interval '1 microsecond'
    ORDER BY deleted_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED))`

// Purge deletes up to limit tombstones that are older than olderThan by the server's clock, oldest first, and returns how many. If it
// deletes fewer than limit, no more are left. A limit that is not between 1 and MaxBatch is ErrInvalid. It blocks at most until
// ctx is done, or for Options.StatementTimeout plus two seconds.
func (s *Store) Purge(ctx context.Context, olderThan time.Duration, limit int) (removed int64, err error) {
	if olderThan < 0 || limit < 1 || limit > MaxBatch {
		return 0, fmt.Errorf("purge tombstones: %w: older than %s, limit %d", ErrInvalid, olderThan, limit)
	}
	err = s.guard(ctx, "purge tombstones", func(ctx context.Context) error {
		result, err := s.db.ExecContext(ctx, s.sql.purge, olderThan.Microseconds(), limit)
		if err != nil {
			return err
		}
		removed, err = result.RowsAffected()
		return err
	})
	return removed, err
}
