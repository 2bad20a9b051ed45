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

// migrateLock is the key of the advisory lock that lets one process at a time migrate: "after" in ASCII, so that it is not
// goose's own, which other programs use on databases of theirs.
const migrateLock = 0x6166746572

// lockSQL takes the lock, which the transaction holds until its end, or until its connection breaks, if it is free. A lock
// of the transaction, unlike one of the session, also works through a PgBouncer in transaction mode; and trying again,
// unlike waiting, occupies no connection that the process which works may need.
const lockSQL = `SELECT pg_try_advisory_xact_lock($1)`

// lockRetry is the time between two attempts.
const lockRetry = 200 * time.Millisecond

// Migrate brings the tables in schema up to date, and returns what it has done, nothing if there was nothing to do. It creates the
// schema if needed, and takes over the tables of an older version (see adopt.go). Several processes may call it at once: one works,
// the others wait for it. It blocks until that is done or ctx is: statement_timeout does not apply, because a migration may have
// to rewrite a large table.
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

// MigrateURL is Migrate into DefaultSchema, for callers who need not know what was done.
func MigrateURL(ctx context.Context, databaseURL string) error {
	_, err := Migrate(ctx, databaseURL, DefaultSchema)
	return err
}

// openForMigrations opens a pool without statement_timeout and lock_timeout. Two connections: one holds the lock. In its
// transactions, names that are not qualified are of the schema, as in the files of migrations: that works through a PgBouncer in
// transaction mode too.
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

// versions is goose's store of what was applied. Without the optional methods of the one inside, goose looks for its table by
// reading it, and not by its name, which is quoted here.
type versions struct{ database.Store }

func newProvider(db *sql.DB, schema string) (*goose.Provider, error) {
	inner, err := database.NewStore(database.DialectPostgres, qualified(schema, tableVersions))
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(database.DialectCustom, db, migrations.FS, goose.WithStore(versions{inner}),
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
}

// migrate runs up (or down, in tests) while it holds the lock. goose has a lock too, but takes it only after it has looked
// for its version table and created it, which two processes then do at once.
func migrate(ctx context.Context, db *sql.DB, schema string,
	run func(*goose.Provider, context.Context) ([]*goose.MigrationResult, error),
) (applied []string, err error) {
	provider, err := newProvider(db, schema)
	if err != nil {
		return nil, err
	}
	var lock *sql.Tx
	for lock == nil {
		if lock, err = tryLock(ctx, db); err != nil {
			return nil, fmt.Errorf("get the lock: %w", err)
		}
		if lock == nil && !sleep(ctx, lockRetry) {
			return nil, fmt.Errorf("wait for another process to migrate: %w", ctx.Err())
		}
	}
	defer func() { _ = lock.Rollback() }() // a lock that cannot be released has gone with its connection
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

// tryLock returns the transaction that holds the lock, nil where another one does.
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
	// The transaction idles while the migrations run.
	if _, err := tx.ExecContext(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
		return nil, err
	}
	var locked bool
	if err := tx.QueryRowContext(ctx, lockSQL, int64(migrateLock)).Scan(&locked); err != nil || !locked {
		return nil, err
	}
	return tx, nil
}
