package load_test

import (
	"database/sql"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/bench/load"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestRedisBenchmarkReallyCounts(t *testing.T) {
	t.Parallel()
	url := localtest.RedisURL(t)
	for range 2 { // the second time, the counters are there already
		perSecond, err := load.RedisBenchmark(t.Context(), url, cache.ApplyScript(), 16, 8000, 100)
		require.NoError(t, err)
		require.Positive(t, perSecond)
	}
	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	client := redis.NewClient(options)
	defer client.Close()
	require.EqualValues(t, 100, client.ZCard(t.Context(), "{aw:07}:dirty").Val())
}

func TestRedisBenchmarkNoticesCallsThatDoNothing(t *testing.T) {
	t.Parallel()
	_, err := load.RedisBenchmark(t.Context(), localtest.RedisURL(t), "return 'c 1'", 16, 800, 100)
	require.ErrorContains(t, err, "it made 800 calls, and the counters rose by 0")
}

func TestPGBenchWritesEveryRow(t *testing.T) {
	t.Parallel()
	url := localtest.PostgresURL(t, migrated)
	perSecond, err := load.PGBenchUpsert(t.Context(), url, 100, 2, time.Second)
	require.NoError(t, err)
	require.Positive(t, perSecond)

	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	defer db.Close()
	var rows int
	require.NoError(t, db.QueryRow("SELECT count(*) FROM counters WHERE length(key) = 20").Scan(&rows))
	require.Positive(t, rows)
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { // statistics come late
		var written float64
		err := db.QueryRow("SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'counters'").Scan(&written)
		require.NoError(t, err)
		return written >= perSecond*0.8 && written <= perSecond*1.2+400, "the rows written are not what pgbench says"
	})
	requireNoBatches(t, db)
}

func TestPGBenchInsertsEachRowOnce(t *testing.T) {
	t.Parallel()
	url := localtest.PostgresURL(t, migrated)
	perSecond, err := load.PGBenchInsert(t.Context(), url, 100, 4, 20)
	require.NoError(t, err)
	require.Positive(t, perSecond)

	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	defer db.Close()
	var rows, ranges int
	require.NoError(t, db.QueryRow(`
SELECT count(*), count(DISTINCT right(key, 12)::bigint / 10000000000) FROM counters WHERE xmax = 0`).Scan(&rows, &ranges))
	require.Equal(t, 2000, rows, "none was updated")
	require.Equal(t, 100, ranges, "the keys are all over their space")
	requireNoBatches(t, db)
}

func requireNoBatches(t *testing.T, db *sql.DB) {
	t.Helper()
	var left bool
	require.NoError(t, db.QueryRow("SELECT to_regclass('bench_batch') IS NOT NULL").Scan(&left))
	require.False(t, left)
}
