package store

import (
	"context"
	"slices"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// existingSQL locks rows, so that their versions do not change before the upsert. It skips rows that another transaction locks: the
	// upsert waits for them, or leaves them out.
	existingSQL = `
SELECT key, version FROM {schema}.counters
WHERE key = ANY (ARRAY(SELECT unnest($1::text[]))) FOR NO KEY UPDATE SKIP LOCKED`

	// updatedSQL counts the rows that this transaction has updated, and not inserted: ON CONFLICT DO UPDATE locks them first, which sets
	// xmax.
	updatedSQL = `SELECT count(*) FROM {schema}.counters WHERE key = ANY (ARRAY(SELECT unnest($1::text[]))) AND xmax <> 0`
)

// existing returns the versions of those mapped counters that are in Postgres already, of the ones that may be flushed for the first time.
// A lineage that began without a row is flushed several times if it does not become clean in between: if a worker dies, or writes go on.
func (u *unlocked) existing(ctx context.Context, tx querier, rows []counter.Row) (map[counter.Key]int64, error) {
	keys := u.firsts(rows, nil)
	had := make(map[counter.Key]int64)
	if len(keys) == 0 {
		return had, nil
	}
	var found []struct {
		Key     counter.Key `db:"key"`
		Version int64       `db:"version"`
	}
	if err := tx.SelectContext(ctx, &found, u.store.sql.existing, keyArray(keys, itself)); err != nil {
		return nil, err
	}
	for _, row := range found {
		had[row.Key] = row.Version
	}
	return had, nil
}

// starting returns written with Started only in rows that are the first flush of their counter. Then the column must still have the value
// that the counter started from. Otherwise the column has an earlier state of the counter. An imported row has version 0, and is not a
// flush.
func (u *unlocked) starting(ctx context.Context, tx querier, written []counter.Row, had map[counter.Key]int64) ([]counter.Row, error) {
	if keys := u.firsts(written, had); len(keys) > 0 {
		var updated []int
		if err := tx.SelectContext(ctx, &updated, u.store.sql.updated, keyArray(keys, itself)); err != nil {
			return nil, err
		}
		if updated[0] > 0 {
			return nil, errRaced // another transaction has inserted a row after existing
		}
	}
	written = slices.Clone(written)
	for i := range written {
		if had[written[i].Key] > 0 { // step: first flush
			written[i].Started = false
		}
	}
	return written, nil
}

// firsts returns the mapped keys of the rows that may be the first flush of their counter, without those of had.
func (u *unlocked) firsts(rows []counter.Row, had map[counter.Key]int64) (keys []counter.Key) {
	for i := range rows {
		if _, exists := had[rows[i].Key]; exists || !first(&rows[i]) {
			continue
		}
		if m, _ := u.store.mappings.Match(rows[i].Key); m != nil {
			keys = append(keys, rows[i].Key)
		}
	}
	return keys
}

func itself(key counter.Key) counter.Key { return key }
