package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// backfillSQL writes counters into the column. A flush writes counters and column in one transaction, counters first. held waits for
// such a flush, reads what it has committed, and keeps the next one out until the column is written. So the column never goes back.
//
// A row of version 0 was imported and not flushed since. If its column has another value, somebody else has written that meanwhile, and the
// first flush takes it. So it is left alone.
//
// The rows of the table are updated in the order of where, as a flush does. wanted sorts, so all counters are locked before the first row.
// If a flush has changed a row since the statement began, UPDATE checks its conditions again with the new version of the row.
//
// OFFSET 0 makes the planner look up each row by the unique index.
const backfillSQL = `
WITH held AS MATERIALIZED (
	SELECT key, value, deleted_at IS NOT NULL AS deleted FROM {counters}
	WHERE key = ANY (ARRAY(SELECT unnest($1::text[]))) AND version > 0 AND (SELECT set_config('lock_timeout', $2, true)) IS NOT NULL
	ORDER BY key FOR SHARE
),
wanted AS MATERIALIZED (
	SELECT batch.*, held.deleted, CASE WHEN held.deleted THEN {deleted} ELSE held.value END AS value
	FROM held JOIN unnest($1::text[]{arrays}) AS batch (key{names}) ON batch.key = held.key
	ORDER BY {sort}batch.key
),
updated AS (
	UPDATE {table} AS t SET {set} = batch.value FROM wanted AS batch
	WHERE {match} AND t.{set} IS DISTINCT FROM batch.value
	RETURNING true
),
missing AS MATERIALIZED (
	SELECT batch.* FROM wanted AS batch
	LEFT JOIN LATERAL (SELECT true AS found FROM {table} AS t WHERE {match} OFFSET 0) AS row ON true
	WHERE NOT batch.deleted AND row.found IS NULL
)%s
SELECT (SELECT count(*) FROM wanted) AS counters, (SELECT count(*) FROM updated) AS updated, (SELECT count(*) FROM missing) AS absent,
	ARRAY(SELECT key FROM missing%s ORDER BY key COLLATE "C") AS missing`

// backfillInsertSQL inserts missing rows. A row that another transaction has inserted since the statement began is in conflict: the next
// statement updates it.
const backfillInsertSQL = `,
inserted AS (
	INSERT INTO {table} ({where}, {set}) SELECT {inserted}, batch.value FROM missing AS batch
	ON CONFLICT ({where}) DO NOTHING
	RETURNING {where}
)`

// backfillInsertedSQL leaves the inserted rows out of the missing ones.
const backfillInsertedSQL = ` AS batch WHERE NOT EXISTS (SELECT FROM inserted AS t WHERE {match})`

// heldSQL returns the targets whose rows other transactions lock. It locks the others for a moment.
const heldSQL = `
WITH batch AS MATERIALIZED (SELECT key{names} FROM unnest($1::text[]{arrays}) AS batch (key{names})),
free AS MATERIALIZED (
	SELECT batch.key FROM batch
	CROSS JOIN LATERAL (SELECT true FROM {table} AS t WHERE {match} FOR NO KEY UPDATE SKIP LOCKED) AS row
)
SELECT batch.key FROM batch CROSS JOIN LATERAL (SELECT true FROM {table} AS t WHERE {match} OFFSET 0) AS row
WHERE batch.key NOT IN (SELECT key FROM free)`

// maxBackfillLocks bounds the attempts of one Backfill that fail because of locks, if rows are locked one after the other.
const maxBackfillLocks = 32

// Backfilled is the result of a Backfill.
type Backfilled struct {
	Counters int64 // found in counters, without those that were only imported
	Updated  int64
	Inserted int64
	Missing  []counter.Key // have no row in the table, and none was inserted
	Refused  []RefusedKey
	Locked   []counter.Key // not written, since other transactions lock their rows
}

// RefusedKey is a counter whose value the table refuses.
type RefusedKey struct {
	Key counter.Key
	Err error
}

// Backfill writes the values of counters into the column, where it differs. It leaves out counters that were only imported. A deleted
// counter sets it to 0 or NULL. Rows that do not exist are inserted, if the mapping says so and the counter is not deleted.
//
// It is safe while others flush: it never overwrites a value by an older one. Flushes of these counters wait meanwhile, at most 100 ms
// longer if another transaction locks a row. A row that Postgres refuses costs only itself: Backfill halves the targets until it is alone.
// More than MaxBatch targets are ErrInvalid. After an error, the result has what was done before.
func (c *Column) Backfill(ctx context.Context, targets []Target) (Backfilled, error) {
	b := backfill{column: c}
	if err := c.check(targets); err != nil || len(targets) == 0 {
		return b.done, err
	}
	err := b.write(ctx, targets)
	return b.done, err
}

// backfill is one call of Backfill.
type backfill struct {
	column *Column
	done   Backfilled
	locks  int // statements that failed because of locks
}

// write writes targets. If one of them is refused, it writes them in halves, until that one is alone. If other transactions lock some of
// their rows, it writes the rest first.
func (b *backfill) write(ctx context.Context, targets []Target) error {
	left := targets
	for try := 1; ; try++ {
		var err error
		left, err = b.attempt(ctx, left)
		contended := isContended(err)
		switch {
		case err != nil && !contended:
			return b.divide(ctx, left, err)
		case len(left) == 0:
			return nil
		case contended && (try == contendedTries || b.locks >= maxBackfillLocks):
			b.done.Locked = append(b.done.Locked, keysOf(left)...)
			return nil
		case try == contendedTries:
			b.done.Counters += int64(len(left))
			b.done.Missing = append(b.done.Missing, keysOf(left)...)
			return nil
		case contended:
			if left, err = b.writeFree(ctx, left); err != nil {
				return err
			}
		}
		if len(left) > 0 && !sleep(ctx, contendedPause/2+rand.N(contendedPause/2)) { //nolint:gosec // jitter needs no secret
			return ctx.Err()
		}
	}
}

// divide writes targets in halves after they were refused together.
func (b *backfill) divide(ctx context.Context, targets []Target, err error) error {
	switch {
	case Classify(err) != Refused:
		return err
	case len(targets) == 1:
		b.done.Refused = append(b.done.Refused, RefusedKey{targets[0].Key, err})
		return nil
	}
	half := len(targets) / 2
	if err := b.write(ctx, targets[:half]); err != nil {
		return err
	}
	return b.write(ctx, targets[half:])
}

// writeFree writes the targets whose rows no other transaction locks, and returns the others.
func (b *backfill) writeFree(ctx context.Context, targets []Target) (held []Target, err error) {
	var keys []string
	err = b.column.guard(ctx, b.what(targets), func(ctx context.Context) error {
		keys = nil
		return b.column.store.db.SelectContext(ctx, &keys, b.column.held, b.column.args(targets)...)
	})
	if isContended(err) || err == nil && len(keys) == 0 { // the whole table is locked, or only counters are, by a flush
		return targets, nil
	}
	if err != nil {
		return nil, err
	}
	var free []Target
	for _, t := range targets {
		if slices.Contains(keys, string(t.Key)) {
			held = append(held, t)
		} else {
			free = append(free, t)
		}
	}
	if len(free) == 0 {
		return held, nil
	}
	return held, b.write(ctx, free)
}

func (b *backfill) what(targets []Target) string {
	return fmt.Sprintf("write %d counters to %s", len(targets), b.column.mapping.ColumnName())
}

// attempt is one statement. left are the targets to be tried again: all after an error, and those whose row another transaction inserted
// meanwhile.
func (b *backfill) attempt(ctx context.Context, targets []Target) (left []Target, err error) {
	var part struct {
		Counters int64          `db:"counters"`
		Updated  int64          `db:"updated"`
		Absent   int64          `db:"absent"` // missing before the statement
		Missing  pq.StringArray `db:"missing"`
	}
	args := b.column.args(targets, milliseconds(inLine))
	err = b.column.guard(ctx, b.what(targets), func(ctx context.Context) error {
		return b.column.store.db.GetContext(ctx, &part, b.column.backfill, args...)
	})
	if err != nil {
		if isContended(err) {
			b.locks++
		}
		return targets, err
	}
	b.done.Counters += part.Counters
	b.done.Updated += part.Updated
	b.done.Inserted += part.Absent - int64(len(part.Missing))
	left = slices.DeleteFunc(slices.Clone(targets), func(t Target) bool {
		_, found := slices.BinarySearch(part.Missing, string(t.Key))
		return !found
	})
	if b.column.mapping.Missing != mapping.Insert {
		b.done.Missing = append(b.done.Missing, keysOf(left)...)
		return nil, nil
	}
	b.done.Counters -= int64(len(left)) // they are counted again
	return left, nil
}

func keysOf(targets []Target) []counter.Key {
	keys := make([]counter.Key, len(targets))
	for i, t := range targets {
		keys[i] = t.Key
	}
	return keys
}
