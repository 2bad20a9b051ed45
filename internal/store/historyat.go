package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// atSQL returns the state of a counter at the time $2 from its operations. The index of each partition up to that day gives its latest
// version.
const atSQL = `
SELECT version, lineage, at, value, amount IS NULL AS deleted FROM {schema}.operations
WHERE key = $1 AND at <= $2 AND day <= ($2 AT TIME ZONE 'UTC')::date
ORDER BY version DESC, lineage DESC LIMIT 1`

const (
	checkpointSQL = `SELECT version, 0 AS lineage, at, value, deleted FROM {schema}.operations_checkpoints WHERE key = $1`

	earliestSQL = `SELECT at FROM {schema}.operations WHERE key = $1 ORDER BY version, lineage LIMIT 1`
)

// Past is the state of a counter at a time.
type Past struct {
	// Record has the state, without the operation and its origin. Nil: the state is not known.
	Record *counter.Record
	// Earliest is the first time whose state is known, if Record is nil. Zero: Postgres has no history of the counter.
	Earliest time.Time
}

// pastRow is a row of atSQL.
type pastRow struct {
	Version int64         `db:"version"`
	Lineage int64         `db:"lineage"`
	At      time.Time     `db:"at"`
	Value   sql.NullInt64 `db:"value"`
	Deleted bool          `db:"deleted"`
}

func (p pastRow) record() *counter.Record {
	return &counter.Record{
		Version: p.Version, Lineage: p.Lineage, At: p.At.UTC(), Value: p.Value.Int64, Known: p.Value.Valid, Deleted: p.Deleted,
	}
}

// StateAt returns the state of a counter at a time from the history that Postgres has. Before the oldest operation that is kept, it is
// that of the counter's checkpoint, if the checkpoint is not later. It blocks at most until ctx is done, or for Options.StatementTimeout
// plus two seconds.
func (s *Store) StateAt(ctx context.Context, key counter.Key, at time.Time) (past Past, err error) {
	err = s.guard(ctx, "read the past of a counter", func(ctx context.Context) error {
		past, err = s.stateAt(ctx, string(key), at)
		return err
	})
	return past, err
}

// stateAt reads the operations before the checkpoint. In the other order, a purge in between would move an operation out of sight.
func (s *Store) stateAt(ctx context.Context, key string, at time.Time) (Past, error) {
	found, err := s.pastRow(ctx, s.sql.at, key, at)
	if err != nil {
		return Past{}, err
	}
	if found != nil {
		return Past{Record: found.record()}, nil
	}
	checkpoint, err := s.pastRow(ctx, s.sql.checkpoint, key)
	switch {
	case err != nil:
		return Past{}, err
	case checkpoint != nil && checkpoint.At.After(at):
		return Past{Earliest: checkpoint.At.UTC()}, nil
	case checkpoint != nil:
		return Past{Record: checkpoint.record()}, nil
	}
	var earliest time.Time
	err = s.db.GetContext(ctx, &earliest, s.sql.earliest, key)
	if errors.Is(err, sql.ErrNoRows) {
		return Past{}, nil
	}
	return Past{Earliest: earliest.UTC()}, err
}

// pastRow returns nil if there is no row.
func (s *Store) pastRow(ctx context.Context, statement string, args ...any) (*pastRow, error) {
	var row pastRow
	err := s.db.GetContext(ctx, &row, statement, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // no row is no error
	}
	if err != nil {
		return nil, err
	}
	return &row, nil
}
