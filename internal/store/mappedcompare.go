package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Compared is a counter beside its row of the user's table.
type Compared struct {
	Key     counter.Key `db:"key"`
	Value   int64       `db:"value"` // what the column should have, unless Null
	Null    bool        `db:"is_null"`
	Deleted bool        `db:"deleted"`
	Found   bool        `db:"found"`  // the row exists
	Column  *string     `db:"column"` // what the column has; nil: NULL, or no row
	Equal   bool        `db:"equal"`
	// Imported says that the counter was imported and not flushed since. If it differs, somebody else has written the column meanwhile, and
	// the first flush takes the column's value.
	Imported bool `db:"imported"`
}

// compareSQL reads both tables in one snapshot. A flush writes both in one transaction, so it cannot look like a difference. OFFSET 0 makes
// the planner look up each row by an index.
const compareSQL = `
SELECT key, coalesce(value, 0) AS value, value IS NULL AS is_null, deleted, found, has::text AS column, version = 0 AS imported,
	CASE WHEN found THEN has IS NOT DISTINCT FROM value ELSE deleted END AS equal
FROM (
	SELECT batch.key, counter.version, counter.deleted, CASE WHEN counter.deleted THEN {deleted} ELSE counter.value END AS value,
		row.found IS NOT NULL AS found, row.has
	FROM unnest($1::text[]{arrays}) AS batch (key{names})
	CROSS JOIN LATERAL (
		SELECT value, version, deleted_at IS NOT NULL AS deleted FROM {counters} WHERE key = batch.key OFFSET 0
	) AS counter
	LEFT JOIN LATERAL (SELECT true AS found, t.{set} AS has FROM {table} AS t WHERE {match} OFFSET 0) AS row ON true
) AS compared`

// Compare compares counters with the column, both as they were at one moment. A deleted counter equals 0, or NULL if the mapping has
// deleted: null, and a row that does not exist. A counter that is not in Postgres is not in the result. More than MaxBatch targets are
// ErrInvalid.
func (c *Column) Compare(ctx context.Context, targets []Target) ([]Compared, error) {
	if err := c.check(targets); err != nil || len(targets) == 0 {
		return nil, err
	}
	var compared []Compared
	what := fmt.Sprintf("compare %d counters with %s", len(targets), c.mapping.ColumnName())
	err := c.store.guard(ctx, what, func(ctx context.Context) error {
		compared = nil
		return c.store.db.SelectContext(ctx, &compared, c.compare, c.args(targets)...)
	})
	return compared, err
}

// lackingSQL returns the keys that have no row in counters.
const lackingSQL = `
SELECT batch.key FROM unnest($1::text[]) AS batch (key)
LEFT JOIN LATERAL (SELECT true AS found FROM {counters} WHERE key = batch.key OFFSET 0) AS counter ON true
WHERE counter.found IS NULL`

// Lacking returns those of targets that are not in counters. More than MaxBatch targets are ErrInvalid.
func (c *Column) Lacking(ctx context.Context, targets []Target) ([]counter.Key, error) {
	if err := c.check(targets); err != nil || len(targets) == 0 {
		return nil, err
	}
	var keys []counter.Key
	err := c.store.guard(ctx, fmt.Sprintf("look up %d counters", len(targets)), func(ctx context.Context) error {
		keys = nil
		return c.store.db.SelectContext(ctx, &keys, c.lacking, c.args(targets)[0])
	})
	return keys, err
}

// estimateSQL has the planner estimate the counters between two keys.
const estimateSQL = `EXPLAIN (FORMAT JSON) SELECT FROM {counters} WHERE key >= $1 AND key < $2`

// Counters returns Postgres's estimate of the number of counters whose keys begin as those of the mapping do.
func (c *Column) Counters(ctx context.Context) (int64, error) {
	var text string
	prefix := c.mapping.Prefix()
	err := c.store.guard(ctx, "estimate the number of counters", func(ctx context.Context) error {
		return c.store.db.GetContext(ctx, &text, c.estimate, prefix, endOf(prefix))
	})
	if err != nil {
		return 0, err
	}
	var plans []map[string]map[string]any
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		return 0, fmt.Errorf("read a plan of postgres: %w", err)
	}
	rows := 0.0 // unknown, if the plan has another form
	if len(plans) > 0 {
		rows, _ = plans[0]["Plan"]["Plan Rows"].(float64)
	}
	return int64(rows), nil
}
