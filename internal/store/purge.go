package store

import (
	"context"
	"fmt"
	"time"
)

// purgeSQL finds tombstones through the partial index on deleted_at, oldest first, and deletes them by primary key. ARRAY()
// makes the inner query run exactly once; as IN (SELECT ... LIMIT) the planner may run it again for every row. SKIP LOCKED
// keeps it out of the way of a flush that brings one of the keys back to life, and of another purge.
const purgeSQL = `
DELETE FROM {schema}.counters WHERE key = ANY (ARRAY(
    SELECT key FROM {schema}.counters
    WHERE deleted_at IS NOT NULL AND deleted_at < now() - $1::bigint * interval '1 microsecond'
    ORDER BY deleted_at
    LIMIT $2
    FOR UPDATE SKIP LOCKED))`

// Purge deletes up to limit tombstones (1 to MaxBatch, else ErrInvalid) that became so more than olderThan ago by the
// server's clock, the oldest first, and returns how many. Fewer than limit means that there are no more. It blocks until
// ctx is done, or for Options.StatementTimeout plus two seconds, at most.
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
