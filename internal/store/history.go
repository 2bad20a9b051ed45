package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// History has the records of counters, by key. The records of a key are in order of their versions.
type History map[counter.Key][]counter.Record

const (
	tableOperations  = "operations"
	tableCheckpoints = "operations_checkpoints"

	// daysAhead is the number of days whose partitions exist ahead. Purges make them, so it covers a long absence of the scheduler; a flush
	// makes one that is missing nevertheless.
	daysAhead = 3

	// partitionLockTimeout bounds the wait for transactions that use the table. New flushes have to wait meanwhile.
	partitionLockTimeout = time.Second

	day = 24 * time.Hour
)

// appendSQL inserts the records of rows that this transaction has written. Repeating it changes nothing.
const appendSQL = `
INSERT INTO {schema}.operations (key, version, lineage, day, at, operation, amount, value, caller, request, note)
SELECT key, version, lineage, (at AT TIME ZONE 'UTC')::date, at, operation, amount, value,
       nullif(caller, ''), nullif(request, ''), nullif(note, '')
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::text[], $9::text[],
            $10::text[]) AS batch (key, version, lineage, ms, operation, amount, value, caller, request, note),
     LATERAL (SELECT timestamptz 'epoch' + ms * interval '1 millisecond' AS at) time
ON CONFLICT DO NOTHING`

// UpsertHistory is UpsertUnlocked for counters with a history: the records of a row are written in the transaction that writes the row,
// and only if it does. A row that the guard keeps has its own records. Each record of history belongs to one of rows, and its version is
// at most that of the row. If Postgres refuses a record, its row is not written either.
func (s *Store) UpsertHistory(ctx context.Context, rows []counter.Row, history History) (Upserted, error) {
	return s.upsertUnlocked(ctx, rows, history)
}

// hasRecords reports whether rows have records to write.
func (u *unlocked) hasRecords(rows []counter.Row) bool {
	return len(u.history) > 0 && slices.ContainsFunc(rows, func(r counter.Row) bool { return len(u.history[r.Key]) > 0 })
}

// appendRecords writes the records of rows.
func (u *unlocked) appendRecords(ctx context.Context, tx querier, rows []counter.Row) error {
	if !u.hasRecords(rows) {
		return nil
	}
	var all []recordRow
	for i := range rows {
		for _, r := range u.history[rows[i].Key] {
			all = append(all, recordRow{Record: r, key: rows[i].Key})
		}
	}
	for part := range slices.Chunk(all, MaxBatch) {
		if _, err := execute(ctx, tx, u.store.sql.appendRecords, recordArgs(part)...); err != nil {
			return err
		}
	}
	return nil
}

// recordRow is a record and its key.
type recordRow struct {
	counter.Record

	key counter.Key
}

// recordArgs returns the arguments of appendSQL.
func recordArgs(all []recordRow) []any {
	return []any{
		keyArray(all, func(r recordRow) counter.Key { return r.key }),
		int64Array(all, func(r recordRow) int64 { return r.Version }),
		int64Array(all, func(r recordRow) int64 { return r.Lineage }),
		int64Array(all, func(r recordRow) int64 { return r.At.UnixMilli() }),
		textArray(all, func(r recordRow) counter.Change { return r.Change }),
		nullableArray(all, func(r recordRow) (int64, bool) { return r.Amount, !r.Deleted }),
		nullableArray(all, func(r recordRow) (int64, bool) { return r.Value, r.Known }),
		textArray(all, func(r recordRow) string { return r.Caller }),
		textArray(all, func(r recordRow) string { return r.Request }),
		textArray(all, func(r recordRow) string { return r.Note }),
	}
}

// isUnpartitioned reports whether a record was refused because there is no partition for its day. A constraint would have a name.
func isUnpartitioned(err error) bool {
	e := pq.As(err)
	return e != nil && e.SQLState() == stateCheckViolation && e.Constraint == "" && e.Routine == "ExecFindPartition"
}

// stateCheckViolation is the SQLSTATE check_violation.
const stateCheckViolation = "23514"

// days returns the days of the records of rows, once each.
func (u *unlocked) days(rows []counter.Row) []time.Time {
	var days []time.Time
	for i := range rows {
		for _, r := range u.history[rows[i].Key] {
			if at := r.At.UTC().Truncate(day); !slices.ContainsFunc(days, at.Equal) {
				days = append(days, at)
			}
		}
	}
	return days
}

// createPartitions creates the partitions of days that are missing.
func (s *Store) createPartitions(ctx context.Context, days []time.Time) error {
	for _, on := range days {
		if err := s.createPartition(ctx, on); err != nil {
			return fmt.Errorf("create the partition of operations for %s: %w", on.Format(time.DateOnly), err)
		}
	}
	return nil
}

// createPartition creates the partition of a day in a transaction of its own.
func (s *Store) createPartition(ctx context.Context, of time.Time) error {
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if err := boundLocks(ctx, tx); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, s.sql.createPartition, of.Format(time.DateOnly)); err != nil {
		return err
	}
	return tx.Commit()
}

// boundLocks sets partitionLockTimeout for a transaction.
func boundLocks(ctx context.Context, tx querier) error {
	_, err := tx.ExecContext(ctx, "SELECT set_config('lock_timeout', $1, true)", milliseconds(partitionLockTimeout))
	return err
}

const (
	createPartitionSQL = `SELECT {schema}.operations_create($1::date)`
	dropPartitionSQL   = `SELECT {schema}.operations_drop($1::date, $2)`
)

// PrepareHistory creates the partitions of today and the next three days, in UTC, by the server's clock.
func (s *Store) PrepareHistory(ctx context.Context) error {
	return s.guard(ctx, "create the partitions of operations", func(ctx context.Context) error {
		var today time.Time
		if err := s.db.GetContext(ctx, &today, "SELECT (now() AT TIME ZONE 'UTC')::date"); err != nil {
			return err
		}
		days := make([]time.Time, daysAhead+1)
		for i := range days {
			days[i] = today.UTC().Add(time.Duration(i) * day)
		}
		return s.createPartitions(ctx, days)
	})
}

// partitionsSQL lists the days of the partitions that ended before now minus $2 µs, oldest first.
const partitionsSQL = `
SELECT for_day FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid, to_date(substr(c.relname, 12), 'YYYYMMDD') for_day
WHERE i.inhparent = to_regclass($1) AND c.relname ~ '^operations_[0-9]{8}$'
      AND for_day + 1 <= (now() AT TIME ZONE 'UTC') - $2::bigint * interval '1 microsecond'
ORDER BY for_day`

// PurgeHistory drops the partitions with operations older than the retention, by the server's clock, and keeps the last state of each key
// in operations_checkpoints. It returns the number of dropped partitions, at most limit. It blocks until ctx is done, or for each 10,000
// keys of a partition at most for Options.StatementTimeout plus two seconds.
func (s *Store) PurgeHistory(ctx context.Context, retention time.Duration, limit int) (dropped int, err error) {
	var days []time.Time
	err = s.guard(ctx, "list old partitions of operations", func(ctx context.Context) error {
		days = nil
		return s.db.SelectContext(ctx, &days, partitionsSQL, qualified(s.schema, tableOperations), retention.Microseconds())
	})
	for _, of := range days[:min(len(days), limit)] {
		if err := s.dropPartition(ctx, of); err != nil {
			return dropped, err
		}
		dropped++
	}
	return dropped, err
}

// dropPartition drops the partition of a day in one transaction.
func (s *Store) dropPartition(ctx context.Context, of time.Time) (err error) {
	what := "drop the partition of operations for " + of.Format(time.DateOnly)
	tx, err := s.db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	if err := s.guard(ctx, what, func(ctx context.Context) error { return boundLocks(ctx, tx) }); err != nil {
		return err
	}
	var last sql.NullString // key whose state was kept
	for first := true; first || last.Valid; first = false {
		err := s.guard(ctx, what, func(ctx context.Context) error {
			return tx.GetContext(ctx, &last, s.sql.dropPartition, of.Format(time.DateOnly), last)
		})
		if err != nil {
			return err
		}
	}
	return s.guard(ctx, what, func(context.Context) error { return tx.Commit() })
}

// operationsSQL reads a part of a key's history. It uses the primary key of each partition that may have days of it.
const operationsSQL = `
SELECT version, lineage, at, operation, amount, value, coalesce(caller, '') AS caller, coalesce(request, '') AS request,
       coalesce(note, '') AS note
FROM {schema}.operations
WHERE key = $1 AND version > $2 AND at >= $3 AND at < $4 AND day >= ($3 AT TIME ZONE 'UTC')::date
      AND day <= ($4 AT TIME ZONE 'UTC')::date
ORDER BY version, lineage LIMIT $5`

// Span selects a part of a history.
type Span struct {
	After    int64     // only later versions
	From, To time.Time // only operations from From on and before To; zero: no bound
	Limit    int       // 1 to MaxBatch
}

// Operations returns a part of the history of key that Postgres has, in order.
func (s *Store) Operations(ctx context.Context, key counter.Key, span Span) (records []counter.Record, err error) {
	if span.Limit < 1 || span.Limit > MaxBatch {
		return nil, fmt.Errorf("read the history of %q: %w: limit %d", key, ErrInvalid, span.Limit)
	}
	from, to := span.From, span.To
	if from.IsZero() {
		from = time.Unix(0, 0)
	}
	if to.IsZero() {
		to = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	err = s.guard(ctx, "read a history", func(ctx context.Context) error {
		records, err = s.scanRecords(ctx, s.sql.operations, string(key), span.After, from, to, span.Limit)
		return err
	})
	return records, err
}

// latestSQL reads the last operations on a key, the last first. It uses the primary key of each partition backwards.
const latestSQL = `
SELECT version, lineage, at, operation, amount, value, coalesce(caller, '') AS caller, coalesce(request, '') AS request,
       coalesce(note, '') AS note
FROM {schema}.operations WHERE key = $1 ORDER BY version DESC, lineage DESC LIMIT $2`

// Latest returns the last operations on key that Postgres has, at most limit, in order. The limit is 1 to MaxBatch.
func (s *Store) Latest(ctx context.Context, key counter.Key, limit int) (records []counter.Record, err error) {
	if limit < 1 || limit > MaxBatch {
		return nil, fmt.Errorf("read the latest operations on %q: %w: limit %d", key, ErrInvalid, limit)
	}
	err = s.guard(ctx, "read the latest operations on a counter", func(ctx context.Context) error {
		records, err = s.scanRecords(ctx, s.sql.latest, string(key), limit)
		return err
	})
	slices.Reverse(records)
	return records, err
}

// scanRecords returns the records that a query finds.
func (s *Store) scanRecords(ctx context.Context, query string, args ...any) (records []counter.Record, err error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r counter.Record
		var amount, value sql.NullInt64
		err := rows.Scan(&r.Version, &r.Lineage, &r.At, &r.Change, &amount, &value, &r.Caller, &r.Request, &r.Note)
		if err != nil {
			return nil, err
		}
		r.At, r.Amount, r.Deleted = r.At.UTC(), amount.Int64, !amount.Valid
		r.Value, r.Known = value.Int64, value.Valid
		records = append(records, r)
	}
	return records, rows.Err()
}
