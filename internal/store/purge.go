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

const (
	// purgeRecordedSQL is purgeSQL for databases with histories. A tombstone whose key has operations is kept, and is looked at again
	// once it is as old as now: without it the versions of the next counter with this key would begin again, among the old ones. A
	// tombstone without operations takes its checkpoint along, so checkpoints do not accumulate.
	//
	// It descends the primary key of each partition for each old tombstone, until it finds an operation. EXISTS could be planned as one
	// scan of all operations.
	purgeRecordedSQL = `
WITH old AS MATERIALIZED (
    SELECT key, coalesce((SELECT true FROM {schema}.operations o WHERE o.key = c.key LIMIT 1), false) AS recorded
    FROM {schema}.counters c
    WHERE deleted_at IS NOT NULL AND deleted_at < now() - $1::bigint * interval '1 microsecond'
    ORDER BY deleted_at
    LIMIT $2
    FOR UPDATE OF c SKIP LOCKED
),
kept AS (UPDATE {schema}.counters SET deleted_at = now() WHERE key = ANY (ARRAY(SELECT key FROM old WHERE recorded)) RETURNING 1),
removed AS (DELETE FROM {schema}.counters WHERE key = ANY (ARRAY(SELECT key FROM old WHERE NOT recorded)) RETURNING 1),
forgotten AS (DELETE FROM {schema}.operations_checkpoints WHERE key = ANY (ARRAY(SELECT key FROM old WHERE NOT recorded)))
SELECT (SELECT count(*) FROM removed) AS removed, (SELECT count(*) FROM kept) AS kept`

	// hasOperationsSQL reports whether the database has operations: a partition is made with the first. A process without histories need
	// not have the rights to read them.
	hasOperationsSQL = `
SELECT count(*) > 0 FROM pg_class c
WHERE c.oid = to_regclass($1) AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid)
      AND ($3 OR has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(to_regclass($2), 'DELETE'))`
)

// Purge deletes up to limit tombstones that are older than olderThan by the server's clock, oldest first, and returns how many. It keeps
// those of counters with operations for as long again. more reports whether more may be left. A limit that is not between 1 and MaxBatch
// is ErrInvalid. It blocks at most until ctx is done, or for Options.StatementTimeout plus two seconds.
func (s *Store) Purge(ctx context.Context, olderThan time.Duration, limit int) (removed int64, more bool, err error) {
	if olderThan < 0 || limit < 1 || limit > MaxBatch {
		return 0, false, fmt.Errorf("purge tombstones: %w: older than %s, limit %d", ErrInvalid, olderThan, limit)
	}
	var done struct {
		Removed int64 `db:"removed"`
		Kept    int64 `db:"kept"`
	}
	err = s.guard(ctx, "purge tombstones", func(ctx context.Context) error {
		var recorded bool
		err := s.db.GetContext(ctx, &recorded, hasOperationsSQL, qualified(s.schema, tableOperations),
			qualified(s.schema, tableCheckpoints), s.recording)
		if err != nil {
			return err
		}
		if recorded {
			return s.db.GetContext(ctx, &done, s.sql.purgeRecorded, olderThan.Microseconds(), limit)
		}
		n, err := execute(ctx, s.db, s.sql.purge, olderThan.Microseconds(), limit)
		done.Removed = int64(n)
		return err
	})
	return done.Removed, done.Removed+done.Kept == int64(limit), err
}
