package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"time"

	"github.com/lib/pq"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"

	"github.com/afterwrite/afterwrite/migrations"
)

// migrateLock is the key of the advisory lock for migrations: "after" in ASCII. It differs from goose's own key, which other programs
// use.
const migrateLock = 0x6166746572

// lockSQL tries to take the lock until the end of the transaction. A transaction-level lock works through a PgBouncer in transaction
// mode. Polling, unlike waiting, occupies no connection that the migrating process may need.
const lockSQL = `SELECT pg_try_advisory_xact_lock($1)`

// lockRetry is the time between two attempts.
const lockRetry = 200 * time.Millisecond

// Migrate applies the pending migrations to the tables in schema, and returns what it did. It creates the schema if necessary, and
// moves the tables of an older version (see prepare.go). If several processes call it, one migrates and the others wait. It blocks
// until the end or until ctx is done. statement_timeout does not apply, because a migration may rewrite a large table.
func Migrate(ctx context.Context, databaseURL, schema string) (applied []string, err error) {
	db, err := openForMigrations(databaseURL, schema)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	applied, err = migrate(ctx, db, schema, (*goose.Provider).Up)
	if err != nil {
		return applied, fmt.Errorf("migrate: %w", explain(ctx, explainDenied(ctx, db, schema, err)))
	}
	return applied, nil
}

// MigrateURL is Migrate for DefaultSchema, without the list of what it did.
func MigrateURL(ctx context.Context, databaseURL string) error {
	_, err := Migrate(ctx, databaseURL, DefaultSchema)
	return err
}

// openForMigrations opens a pool without statement_timeout and lock_timeout. One of its two connections holds the lock. Each
// transaction sets search_path to the schema, since the migrations do not qualify names; this works through a PgBouncer in
// transaction mode.
func openForMigrations(databaseURL, schema string) (*sql.DB, error) {
	config, err := parseDSN(databaseURL)
	if err != nil {
		return nil, err
	}
	c := newConnector(config, 0, slog.Default())
	c.begin = "SET LOCAL search_path TO " + pq.QuoteIdentifier(schema)
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(2)
	return db, nil
}

// versions hides the optional methods of goose's store. Then goose checks for its table by reading it, not by looking up the name,
// which would fail because it is quoted.
type versions struct{ database.Store }

func newProvider(db *sql.DB, schema string) (*goose.Provider, error) {
	inner, err := database.NewStore(database.DialectPostgres, qualified(schema, tableVersions))
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(database.DialectCustom, db, migrations.FS, goose.WithStore(versions{inner}),
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
}

// migrate calls run (Up, or Down in tests) while it holds the lock. goose's own lock is not enough: goose takes it only after it has
// created its version table, which two processes may do at the same time.
func migrate(ctx context.Context, db *sql.DB, schema string,
	run func(*goose.Provider, context.Context) ([]*goose.MigrationResult, error),
) (applied []string, err error) {
	provider, err := newProvider(db, schema)
	if err != nil {
		return nil, err
	}
	lock, err := awaitLock(ctx, db)
	if err != nil {
		return nil, err
	}
	defer func() { _ = lock.Rollback() }() // if it fails, the connection is broken and the lock is released
	if applied, err = prepare(ctx, db, schema); err != nil {
		return nil, err
	}
	results, err := run(provider, ctx)
	if partial := (*goose.PartialError)(nil); errors.As(err, &partial) {
		results = partial.Applied
	}
	for _, result := range results {
		applied = append(applied, path.Base(result.Source.Path))
	}
	return applied, err
}

// awaitLock returns a transaction that holds the lock for migrations.
func awaitLock(ctx context.Context, db *sql.DB) (lock *sql.Tx, err error) {
	for {
		if lock, err = tryLock(ctx, db); err != nil {
			return nil, fmt.Errorf("get the lock: %w", err)
		}
		if lock != nil {
			return lock, nil
		}
		if !sleep(ctx, lockRetry) {
			return nil, fmt.Errorf("wait for another process to migrate: %w", ctx.Err())
		}
	}
}

// tryLock returns the transaction that holds the lock, or nil if another process holds it.
func tryLock(ctx context.Context, db *sql.DB) (lock *sql.Tx, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() {
		if lock == nil {
			_ = tx.Rollback()
		}
	}()
	var locked bool
	if err := tx.QueryRowContext(ctx, lockSQL, int64(migrateLock)).Scan(&locked); err != nil || !locked {
		return nil, err
	}
	// The transaction is idle while the migrations run. This statement has to be the last one: it drops the portal of the query before
	// it, whose snapshot CREATE INDEX CONCURRENTLY would wait for.
	if _, err := tx.ExecContext(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
		return nil, err
	}
	return tx, nil
}
