package store

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

// Landing is where a mapped counter lands: its row in counters beside its column, both as they were at one moment.
type Landing struct {
	Mapping *mapping.Mapping
	Row     string // of the mapped table, for people: "public.posts (id = 7)"

	Counted bool    // counters has a row; else the column is what the counter starts from
	Exists  bool    // the mapped table has the row
	Column  *string // its value; nil: NULL, or there is no row
	Agrees  bool    // the column has the counter's value. A deleted counter also agrees with a row that does not exist
}

// landingSQL reads both tables in one snapshot. A flush writes both in one transaction, so it cannot look like a difference.
const landingSQL = `
SELECT has.found IS NOT NULL AS found, has.value::text AS value, counter.key IS NOT NULL AS counted, coalesce(CASE
	WHEN counter.deleted_at IS NOT NULL THEN has.found IS NULL OR has.value IS NOT DISTINCT FROM {deleted}
	ELSE has.value = counter.value
END, false) AS agrees
FROM (SELECT {names} n FROM ` + batchOf + `) AS batch
LEFT JOIN LATERAL (SELECT true AS found, t.{set} AS value FROM {table} AS t WHERE {match}) AS has ON true
LEFT JOIN {counters} AS counter ON counter.key = `

// Landing reads where key lands, in one query. found is false if key has no mapping. An error about the schema or the permissions of the
// mapped table does not count as an outage of Postgres. Landing blocks at most until ctx is done, or for Options.StatementTimeout plus two
// seconds.
func (s *Store) Landing(ctx context.Context, key counter.Key) (landing Landing, found bool, err error) {
	parts := s.mapped([]counter.Row{{Key: key}})
	if len(parts) == 0 {
		return Landing{}, false, nil
	}
	part := parts[0]
	landing = Landing{Mapping: part.Mapping, Row: part.Row(part.rows[0].texts)}
	var read struct {
		Found   bool    `db:"found"`
		Value   *string `db:"value"`
		Counted bool    `db:"counted"`
		Agrees  bool    `db:"agrees"`
	}
	args := append(part.args(part.rows), string(key))
	var broken error
	err = s.guard(ctx, "read "+part.ColumnName(), func(ctx context.Context) error {
		err := s.db.GetContext(ctx, &read, part.sql.landing, args...)
		if broken = nil; isBroken(err) || IsLocked(err) {
			broken = &MappingError{Mapping: part.Name, Keys: []counter.Key{key}, Err: err}
			return nil
		}
		return err
	})
	if err == nil {
		err = broken
	}
	landing.Counted, landing.Exists, landing.Column, landing.Agrees = read.Counted, read.Found, read.Value, read.Agrees
	return landing, true, err
}
