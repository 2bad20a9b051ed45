package load_test

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/proof/bench/load"
)

func TestRedisBenchmarkIncrementsEveryKey(t *testing.T) {
	t.Parallel()
	const pipeline, n, keys = 16, 8000, 100
	url := localtest.RedisURL(t)
	perSecond, err := load.RedisBenchmark(t.Context(), url, pipeline, n, keys)
	require.NoError(t, err)
	require.Positive(t, perSecond)

	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	client := redis.NewClient(options)
	defer client.Close()
	var sum int64
	for key := range keys {
		value, err := client.Get(t.Context(), fmt.Sprintf("counter:%012d", key)).Int64()
		require.NoError(t, err)
		sum += value
	}
	require.GreaterOrEqual(t, sum, int64(n))
	require.LessOrEqual(t, sum, int64(n+load.RedisOvershoot(pipeline)))
	require.EqualValues(t, keys, client.DBSize(t.Context()).Val())
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
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { // Postgres updates its statistics late
		var written float64
		err := db.QueryRow("SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'counters'").Scan(&written)
		require.NoError(t, err)
		return written >= perSecond*0.8 && written <= perSecond*1.2+400, "the statistics differ from the rate of pgbench"
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
	require.Equal(t, 2000, rows, "every row was inserted once")
	require.Equal(t, 100, ranges, "the keys are spread over their whole range")
	requireNoBatches(t, db)
}

func requireNoBatches(t *testing.T, db *sql.DB) {
	t.Helper()
	var left bool
	require.NoError(t, db.QueryRow("SELECT to_regclass('bench_batch') IS NOT NULL").Scan(&left))
	require.False(t, left)
}
