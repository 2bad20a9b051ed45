package store

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// readSQL must use the primary key's index. ARRAY(SELECT ...) hides the number of keys from the planner. With a plain ANY($1) and
// 1,000 keys, the planner scans tables of up to about 100,000 rows (16 ms instead of 5).
const readSQL = `
SELECT key, value, version, deleted_at IS NOT NULL AS deleted, lineage
FROM {schema}.counters WHERE key = ANY (ARRAY(SELECT unnest($1::text[])))`

// Read returns the rows of keys in one query. A tombstone is a row with Deleted true and Value 0. A key without a row is not in the
// result, unless it is mapped to a column that has a value other than 0: then its row has that value, and version 0. That takes one more
// query for each mapping of such keys. Unread reports keys whose columns could not be read.
//
// More than MaxBatch keys are ErrInvalid. It blocks at most until ctx is done, or for Options.StatementTimeout plus two seconds.
func (s *Store) Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error) {
	if len(keys) == 0 {
		return map[counter.Key]counter.Row{}, nil
	}
	if len(keys) > MaxBatch {
		return nil, fmt.Errorf("read %d rows: %w: at most %d keys", len(keys), ErrInvalid, MaxBatch)
	}
	var rows map[counter.Key]counter.Row
	array := keyArray(keys, func(k counter.Key) counter.Key { return k })
	read := func(ctx context.Context, q querier) (err error) {
		rows, err = s.read(ctx, q, array)
		return err
	}
	done := s.onStandby(ctx, read)
	if done && (len(rows) == len(keys) || s.mappings == nil) {
		return rows, nil
	}
	var unread []*MappingError // not the breaker's: all other calls work
	err := s.guard(ctx, fmt.Sprintf("read %d rows", len(keys)), func(ctx context.Context) error {
		var err error
		if !done {
			err = read(ctx, s.db)
		}
		if err == nil && len(rows) < len(keys) {
			unread, err = s.adopt(ctx, keys, rows)
		}
		return err
	})
	if err == nil && len(unread) > 0 {
		err = &partialError{failed: unread}
	}
	return rows, err
}

// record is a counter.Row with the tags that sqlx needs.
type record struct {
	Key     counter.Key `db:"key"`
	Value   int64       `db:"value"`
	Version int64       `db:"version"`
	Deleted bool        `db:"deleted"`
	Lineage int64       `db:"lineage"`
}

func (r record) row() counter.Row {
	return counter.Row{Key: r.Key, Value: r.Value, Version: r.Version, Deleted: r.Deleted, Lineage: r.Lineage}
}

// read returns the rows of an encoded array of keys.
func (s *Store) read(ctx context.Context, q querier, keys []byte) (map[counter.Key]counter.Row, error) {
	var found []record
	if err := q.SelectContext(ctx, &found, s.sql.read, keys); err != nil {
		return nil, err
	}
	rows := make(map[counter.Key]counter.Row, len(found))
	for _, r := range found {
		row := r.row()
		if row.Deleted {
			row.Value = 0
		}
		rows[row.Key] = row
	}
	return rows, nil
}
