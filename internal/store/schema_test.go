package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestUpdatesOfLiveRowsAreHOT(t *testing.T) {
	t.Parallel()
	// This needs a server of its own. A login to any database of a server briefly keeps Postgres from removing old row versions in
	// all databases, and this test updates the same rows much faster than a worker.
	server := localtest.OwnPostgres(t, local.PostgresOptions{})
	require.NoError(t, MigrateURL(t.Context(), server.URL()))
	s := open(t, server.URL(), Options{})
	const keys, rounds = 1000, 30
	rows := make([]counter.Row, keys)
	for round := range rounds + 1 {
		for i := range rows {
			rows[i] = row(fmt.Sprintf("page:%04d:views", i), int64(round), int64(round))
		}
		upsert(t, s, rows...)
	}

	var stats struct {
		Updated int64 `db:"n_tup_upd"`
		HOT     int64 `db:"n_tup_hot_upd"`
	}
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		require.NoError(t, s.db.GetContext(t.Context(), &stats,
			"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'counters'"))
		return stats.Updated == keys*rounds, fmt.Sprintf("the statistics show %d updates, not %d", stats.Updated, keys*rounds)
	})
	require.Greater(t, float64(stats.HOT), 0.98*float64(stats.Updated), "of %d updates, %d were HOT", stats.Updated, stats.HOT)
}

func TestPlansUseIndexes(t *testing.T) {
	t.Parallel()
	s := setup(t)
	exec(t, s, `INSERT INTO counters SELECT 'k' || i, 0, 1, CASE WHEN i % 100 = 0 THEN now() - interval '1 day' END, now(), 0, 0
		FROM generate_series(1, 20000) i`)
	exec(t, s, "ANALYZE counters")
	require.NoError(t, s.PrepareHistory(t.Context()))
	exec(t, s, `INSERT INTO operations (key, version, lineage, day, at, operation)
		SELECT 'k' || i, 1, 0, (now() AT TIME ZONE 'UTC')::date, now(), 'delete' FROM generate_series(1, 20000, 20) i`)
	exec(t, s, "ANALYZE operations")

	plan := func(query string, args ...any) string {
		var lines []string
		require.NoError(t, s.db.SelectContext(t.Context(), &lines, "EXPLAIN (COSTS OFF) "+query, args...))
		return fmt.Sprint(lines)
	}
	many := make([]counter.Row, 1000)
	for i := range many {
		many[i] = row(fmt.Sprint("k", i*20), 0, 0)
	}
	for _, n := range []int{1, 10, len(many)} {
		require.Contains(t, plan(s.sql.read, keyArray(many[:n], rowKey)), "Index Scan using counters_pkey", "%d keys", n)
	}
	free := plan(s.sql.upsertFree, append(upsertArgs(many), milliseconds(briefly))...)
	require.Contains(t, free, "counters_pkey")
	require.NotContains(t, free, "Seq Scan")
	for _, statement := range []string{s.sql.purge, s.sql.purgeRecorded} {
		purge := plan(statement, time.Hour.Microseconds(), 10)
		require.Contains(t, purge, "counters_deleted_at_idx")
		require.Contains(t, purge, "counters_pkey")
		require.NotContains(t, purge, "Seq Scan on counters")
	}
	today := time.Now().UTC().Format("20060102") // the other partitions are empty
	require.Contains(t, plan(s.sql.purgeRecorded, time.Hour.Microseconds(), 10), "operations_"+today+"_pkey")
}

func TestInfoDescribesTheServer(t *testing.T) {
	t.Parallel()
	s := setup(t)
	info, err := s.Info(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, info.Version)
	require.Greater(t, info.VersionNumber, 100_000)
	require.WithinDuration(t, time.Now(), info.Now, 10*time.Second)
	require.False(t, info.InRecovery)
	require.False(t, info.ReadOnly)
	require.Positive(t, info.MaxConnections)

	exec(t, s, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
	info, err = open(t, s.url, Options{}).Info(t.Context())
	require.NoError(t, err)
	require.True(t, info.ReadOnly)
}
