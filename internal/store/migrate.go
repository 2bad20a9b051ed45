package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"time"

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

// Migrate applies the migrations that are pending and returns their names, none if there are none. Several processes may
// call it at once: one works, the others wait for it. It blocks until that is done or ctx is: statement_timeout does not
// apply, because a migration may have to rewrite a large table.
func Migrate(ctx context.Context, databaseURL string) (applied []string, err error) {
	db, err := openForMigrations(databaseURL)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	applied, err = migrate(ctx, db, (*goose.Provider).Up)
	if err != nil {
		return applied, fmt.Errorf("migrate: %w", explain(ctx, err))
	}
	return applied, nil
}

// MigrateURL is Migrate for callers who need not know what was applied.
func MigrateURL(ctx context.Context, databaseURL string) error {
	_, err := Migrate(ctx, databaseURL)
	return err
}

// PendingMigrations returns how many migrations of this program the database lacks. It only reads, so it works on a
// standby too; on a database that was never migrated the result is all of them.
func (s *Store) PendingMigrations(ctx context.Context) (int, error) {
	var pending int
	err := s.guard(ctx, "look for pending migrations", func(ctx context.Context) error {
		provider, err := newProvider(s.db.DB)
		if err != nil {
			return err
		}
		done, err := appliedVersions(ctx, s.db.DB)
		if err != nil {
			return err
		}
		pending = 0
		for _, source := range provider.ListSources() {
			if !done[source.Version] {
				pending++
			}
		}
		return nil
	})
	return pending, err
}

// openForMigrations opens a pool without statement_timeout and lock_timeout. Two connections: one holds the lock.
func openForMigrations(databaseURL string) (*sql.DB, error) {
	config, err := parseDSN(databaseURL)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(newConnector(config, 0, slog.Default()))
	db.SetMaxOpenConns(2)
	return db, nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
}

// migrate runs up (or down, in tests) while it holds the lock. goose has a lock too, but takes it only after it has looked
// for its version table and created it, which two processes then do at once.
func migrate(ctx context.Context, db *sql.DB, run func(*goose.Provider, context.Context) ([]*goose.MigrationResult, error),
) (applied []string, err error) {
	provider, err := newProvider(db)
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

// appliedVersions reads goose's version table.
func appliedVersions(ctx context.Context, db *sql.DB) (map[int64]bool, error) {
	var exists bool
	if err := db.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", goose.DefaultTablename).Scan(&exists); err != nil {
		return nil, err
	}
	done := make(map[int64]bool)
	if !exists {
		return done, nil
	}
	versions, err := database.NewStore(database.DialectPostgres, goose.DefaultTablename)
	if err != nil {
		return nil, err
	}
	list, err := versions.ListMigrations(ctx, db)
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		done[m.Version] = m.IsApplied
	}
	return done, nil
}
