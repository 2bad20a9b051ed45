package store

import (
	"context"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/migrations"
)

func TestConcurrentMigratesApplyEachMigrationOnce(t *testing.T) {
	t.Parallel()
	url := localtest.PostgresURL(t, nil)
	files, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	s := open(t, url, Options{})

	pending, err := s.PendingMigrations(t.Context())
	require.NoError(t, err)
	require.Equal(t, len(files), pending)
	require.False(t, get[bool](t, s, "SELECT to_regnamespace('afterwrite') IS NOT NULL"), "PendingMigrations changes nothing")

	const processes = 5
	var group sync.WaitGroup
	applied := make([][]string, processes)
	errs := make([]error, processes)
	for i := range processes {
		group.Go(func() { applied[i], errs[i] = Migrate(t.Context(), url, DefaultSchema) })
	}
	group.Wait()
	var all []string
	for i := range processes {
		require.NoError(t, errs[i])
		all = append(all, applied[i]...)
	}
	require.Equal(t, files, all)

	pending, err = s.PendingMigrations(t.Context())
	require.NoError(t, err)
	require.Zero(t, pending)
	upsert(t, s, row("k", 1, 1))
}

func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	t.Parallel()
	s := setup(t)
	db, err := openForMigrations(s.url, DefaultSchema)
	require.NoError(t, err)
	defer db.Close()
	_, err = migrate(t.Context(), db, DefaultSchema, func(p *goose.Provider, ctx context.Context) ([]*goose.MigrationResult, error) {
		return p.DownTo(ctx, 0)
	})
	require.NoError(t, err)
	require.Zero(t, get[int](t, s, "SELECT count(*) FROM pg_class WHERE relname IN ('counters', 'counters_actions')"))
	require.NoError(t, MigrateURL(t.Context(), s.url))
	upsert(t, s, row("k", 1, 1))
}

func TestMigrateWaitsForTheLockUntilItsContextIsDone(t *testing.T) {
	t.Parallel()
	s := setup(t)
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(t.Context(), lockSQL, int64(migrateLock))
	require.NoError(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, MigrateURL(ctx, s.url), context.Canceled)
	require.ErrorIs(t, MigrateURL(soon(t, 500*time.Millisecond), s.url), context.DeadlineExceeded)
}
