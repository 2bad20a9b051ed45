package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// TopIndex is the name of the index on value. It is not part of the schema, because it makes flushes slower: an update of an indexed
// column is not HOT, so each row gets new entries in all indexes. Measured with 1,000 of 100,000 rows (BenchmarkUpsertTop, 2 cores,
// PostgreSQL 15): 18 ms and 224 bytes of WAL a row without the index, 26 ms and 397 bytes with it.
const TopIndex = "counters_value_idx"

const (
	// createTopSQL does not block writes, unlike CREATE INDEX without CONCURRENTLY. It cannot run in a transaction. Collation "C" is the
	// column's.
	createTopSQL = `CREATE INDEX CONCURRENTLY counters_value_idx ON {schema}.counters (value DESC, key) WHERE deleted_at IS NULL`
	dropTopSQL   = `DROP INDEX CONCURRENTLY {schema}.counters_value_idx`

	// topStateSQL returns no row without the index. The index is not valid while it is being created, and if that was interrupted.
	topStateSQL = `SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)`
)

// IndexState is the state of the index for Top.
type IndexState string

// The states.
const (
	IndexMissing IndexState = "missing"
	IndexInvalid IndexState = "invalid" // it is being created, or that was interrupted
	IndexReady   IndexState = "ready"
)

// TopIndexState returns the state of the index for Top.
func (s *Store) TopIndexState(ctx context.Context) (state IndexState, err error) {
	err = s.guard(ctx, "look for the index "+TopIndex, func(ctx context.Context) error {
		state, err = topIndexState(ctx, s.db.DB, s.schema)
		return err
	})
	return state, err
}

func topIndexState(ctx context.Context, db *sql.DB, schema string) (IndexState, error) {
	var valid bool
	err := db.QueryRowContext(ctx, topStateSQL, qualified(schema, TopIndex)).Scan(&valid)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return IndexMissing, nil
	case err != nil:
		return "", err
	case !valid:
		return IndexInvalid, nil
	}
	return IndexReady, nil
}

// DropTopIndex returns the statement that drops the index for Top.
func DropTopIndex(schema string) string { return newStatements(schema).dropTop }

// CreateTopIndex creates the index for Top unless it exists, and reports whether it did. It replaces one whose creation was interrupted.
// Call it after Migrate, as the same role. If several processes call it, one creates the index and the others wait. It blocks until the
// end or until ctx is done; reads and writes go on meanwhile. A million rows take some seconds.
func CreateTopIndex(ctx context.Context, databaseURL, schema string) (created bool, err error) {
	db, err := openForMigrations(databaseURL, schema)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	lock, err := awaitLock(ctx, db)
	if err == nil {
		defer func() { _ = lock.Rollback() }() // if it fails, the connection is broken and the lock is released
		created, err = createTopIndex(ctx, db, schema)
	}
	if err != nil {
		return false, fmt.Errorf("create the index %s: %w", TopIndex, explain(ctx, explainDenied(ctx, db, schema, err)))
	}
	return created, nil
}

func createTopIndex(ctx context.Context, db *sql.DB, schema string) (created bool, err error) {
	state, err := topIndexState(ctx, db, schema)
	if err != nil || state == IndexReady {
		return false, err
	}
	statements := newStatements(schema)
	if state == IndexInvalid {
		if _, err := db.ExecContext(ctx, statements.dropTop); err != nil {
			return false, fmt.Errorf("drop the one whose creation was interrupted: %w", err)
		}
	}
	_, err = db.ExecContext(ctx, statements.createTop)
	return err == nil, err
}
