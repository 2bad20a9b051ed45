package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// RecordPlace is the place of a record in the order of the table operations.
type RecordPlace struct {
	Key     counter.Key
	Version int64
	Lineage int64
	Day     time.Time
}

// KeyedRecord is a record and its key, without the origin.
type KeyedRecord struct {
	counter.Record

	Key counter.Key
}

// recordPageSQL reads records in the order of the primary key, which merges the indexes of the partitions.
const recordPageSQL = `
SELECT key, version, lineage, day, operation, amount, value FROM {schema}.operations
WHERE (key, version, lineage, day) > ($1, $2, $3, $4::date)
ORDER BY key, version, lineage, day LIMIT $5`

// cursorSQL declares a cursor on the records of a key.
const cursorSQL = `DECLARE history NO SCROLL CURSOR FOR
SELECT key, version, lineage, day, operation, amount, value FROM {schema}.operations
WHERE key = $1 ORDER BY version, lineage, day`

// historyEndsSQL reads the rows and the checkpoints of keys.
const historyEndsSQL = `
SELECT batch.key, c.version, c.value, c.deleted_at IS NOT NULL AS deleted,
       p.version AS past_version, p.value AS past_value, coalesce(p.deleted, false) AS past_deleted
FROM unnest($1::text[]) AS batch (key)
LEFT JOIN LATERAL (SELECT version, value, deleted_at FROM {schema}.counters WHERE key = batch.key OFFSET 0) c ON true
LEFT JOIN LATERAL (SELECT version, value, deleted FROM {schema}.operations_checkpoints WHERE key = batch.key OFFSET 0) p ON true`

// HistoryEnds are the states between which a counter's records lead.
type HistoryEnds struct {
	Row        *counter.Row    // nil: none
	Checkpoint *counter.Record // the state before the oldest record that is kept; nil: none was dropped
}

// recordAt is a row of recordPageSQL.
type recordAt struct {
	Key     counter.Key    `db:"key"`
	Version int64          `db:"version"`
	Lineage int64          `db:"lineage"`
	Day     time.Time      `db:"day"`
	Change  counter.Change `db:"operation"`
	Amount  sql.NullInt64  `db:"amount"`
	Value   sql.NullInt64  `db:"value"`
}

func (r recordAt) record() KeyedRecord {
	return KeyedRecord{Key: r.Key, Record: counter.Record{
		Version: r.Version, Lineage: r.Lineage, Change: r.Change, Amount: r.Amount.Int64, Deleted: !r.Amount.Valid,
		Value: r.Value.Int64, Known: r.Value.Valid,
	}}
}

// Records returns up to limit records after a place, by key and version, and the place of the last. There are no more if it returns fewer
// than limit. A limit that is not between 1 and MaxBatch is ErrInvalid. It takes no lock that a writer waits for, and blocks at most until
// ctx is done, or for Options.StatementTimeout plus two seconds.
func (s *Store) Records(ctx context.Context, after RecordPlace, limit int) ([]KeyedRecord, RecordPlace, error) {
	if limit < 1 || limit > MaxBatch {
		return nil, after, fmt.Errorf("read records: %w: limit %d", ErrInvalid, limit)
	}
	var found []recordAt
	err := s.guard(ctx, "read records", func(ctx context.Context) error {
		found = nil
		return s.db.SelectContext(ctx, &found, s.sql.recordPage, string(after.Key), after.Version, after.Lineage,
			after.Day.Format(time.DateOnly), limit)
	})
	if err != nil || len(found) == 0 {
		return nil, after, err
	}
	last := found[len(found)-1]
	return keyedRecords(found), RecordPlace{Key: last.Key, Version: last.Version, Lineage: last.Lineage, Day: last.Day}, nil
}

func keyedRecords(found []recordAt) []KeyedRecord {
	records := make([]KeyedRecord, len(found))
	for i, r := range found {
		records[i] = r.record()
	}
	return records
}

// endRow is a row of historyEndsSQL.
type endRow struct {
	Key         counter.Key   `db:"key"`
	Version     sql.NullInt64 `db:"version"`
	Value       sql.NullInt64 `db:"value"`
	Deleted     bool          `db:"deleted"`
	PastVersion sql.NullInt64 `db:"past_version"`
	PastValue   sql.NullInt64 `db:"past_value"`
	PastDeleted bool          `db:"past_deleted"`
}

// HistoryEnds reads the rows and the checkpoints of keys, at one moment. More than MaxBatch keys are ErrInvalid.
func (s *Store) HistoryEnds(ctx context.Context, keys []counter.Key) (ends map[counter.Key]HistoryEnds, err error) {
	if len(keys) > MaxBatch {
		return nil, fmt.Errorf("read the ends of %d histories: %w: at most %d keys", len(keys), ErrInvalid, MaxBatch)
	}
	err = s.guard(ctx, "read the ends of histories", func(ctx context.Context) error {
		ends, err = s.historyEnds(ctx, s.db, keys)
		return err
	})
	return ends, err
}

func (s *Store) historyEnds(ctx context.Context, q querier, keys []counter.Key) (map[counter.Key]HistoryEnds, error) {
	var found []endRow
	array := keyArray(keys, func(k counter.Key) counter.Key { return k })
	if err := q.SelectContext(ctx, &found, s.sql.historyEnds, array); err != nil {
		return nil, err
	}
	ends := make(map[counter.Key]HistoryEnds, len(found))
	for _, f := range found {
		var e HistoryEnds
		if f.Version.Valid {
			e.Row = &counter.Row{Key: f.Key, Version: f.Version.Int64, Value: f.Value.Int64, Deleted: f.Deleted}
		}
		if f.PastVersion.Valid {
			e.Checkpoint = &counter.Record{
				Version: f.PastVersion.Int64, Value: f.PastValue.Int64, Known: f.PastValue.Valid, Deleted: f.PastDeleted,
			}
		}
		ends[f.Key] = e
	}
	return ends, nil
}

// EachPart is called with the parts of a history. ends are the same each time.
type EachPart func(ends HistoryEnds, records []KeyedRecord)

// ReadHistory passes all records of a key to each, by version, in parts of up to MaxBatch and at least once, with their ends. All are from
// one snapshot. A flush writes the row and its records in one transaction, so they agree. It takes no lock that a writer waits for. It
// blocks until all is read or ctx is done, and for each part at most for Options.StatementTimeout plus two seconds.
func (s *Store) ReadHistory(ctx context.Context, key counter.Key, each EachPart) (ends HistoryEnds, err error) {
	tx, err := s.db.BeginTxx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return ends, fmt.Errorf("read the history of %q: %w", key, err)
	}
	defer func() { err = errors.Join(err, ignoreDone(tx.Rollback())) }()
	what := fmt.Sprintf("read the history of %q", key)
	err = s.guard(ctx, what, func(ctx context.Context) error {
		found, err := s.historyEnds(ctx, tx, []counter.Key{key})
		if err != nil {
			return err
		}
		ends = found[key]
		_, err = tx.ExecContext(ctx, s.sql.cursor, string(key))
		return err
	})
	for err == nil {
		var found []recordAt
		err = s.guard(ctx, what, func(ctx context.Context) error {
			found = nil
			return tx.SelectContext(ctx, &found, fmt.Sprintf("FETCH %d FROM history", MaxBatch))
		})
		if err == nil {
			each(ends, keyedRecords(found))
		}
		if len(found) < MaxBatch {
			break
		}
	}
	return ends, err
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
