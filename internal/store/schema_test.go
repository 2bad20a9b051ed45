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
	// A server of its own: a connection that is being made to any database of a server holds back the clearing away of
	// old row versions in all of them for a moment, and this test updates as fast as it can, not once a second.
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
		return stats.Updated == keys*rounds, fmt.Sprintf("the statistics have %d updates of %d", stats.Updated, keys*rounds)
	})
	require.Greater(t, float64(stats.HOT), 0.98*float64(stats.Updated), "of %d updates, %d were HOT", stats.Updated, stats.HOT)
}

func TestPlansUseTheIndexesTheyNeed(t *testing.T) {
	t.Parallel()
	s := setup(t)
	exec(t, s, `INSERT INTO counters SELECT 'k' || i, 0, 1, CASE WHEN i % 100 = 0 THEN now() - interval '1 day' END, now(), 0, 0
		FROM generate_series(1, 20000) i`)
	exec(t, s, "ANALYZE counters")

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
	purge := plan(s.sql.purge, time.Hour.Microseconds(), 10)
	require.Contains(t, purge, "counters_deleted_at_idx")
	require.Contains(t, purge, "counters_pkey")
	require.NotContains(t, purge, "Seq Scan")
}
