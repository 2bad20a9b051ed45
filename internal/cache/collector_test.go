package cache_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// stateOf registers the collectors of the Redis at url.
func stateOf(t *testing.T, url string) *prometheus.Registry {
	t.Helper()
	client, err := cache.Connect(url, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return stateBy(cache.New(client, cache.Options{Shards: 1, CleanTTL: time.Hour}))
}

// stateBy registers the collectors of c.
func stateBy(c *cache.Cache) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c.NewCollector())
	return registry
}

// gauges returns the gauges of the collectors by name. Each call reads Redis anew.
func gauges(t *testing.T, c *cache.Cache) map[string]float64 {
	t.Helper()
	families, err := stateBy(c).Gather()
	require.NoError(t, err)
	values := make(map[string]float64, len(families))
	for _, family := range families {
		values[family.GetName()] = family.GetMetric()[0].GetGauge().GetValue()
	}
	return values
}

const withoutAOF = `
# HELP afterwrite_redis_aof_enabled 1 while Redis (on a cluster, every node) writes an append-only file, else 0.
# TYPE afterwrite_redis_aof_enabled gauge
afterwrite_redis_aof_enabled 0
# HELP afterwrite_redis_aof_last_write_ok 0 if the last write to Redis's append-only file failed (on a cluster, on any node), else 1.
# TYPE afterwrite_redis_aof_last_write_ok gauge
afterwrite_redis_aof_last_write_ok 1
# HELP afterwrite_redis_memory_max_bytes The maxmemory of that Redis; 0: it has none.
# TYPE afterwrite_redis_memory_max_bytes gauge
afterwrite_redis_memory_max_bytes 1e+08
# HELP afterwrite_redis_up 1 while Redis (on a cluster, every node) serves counters to this process, else 0.
# TYPE afterwrite_redis_up gauge
afterwrite_redis_up 1
`

func TestCollectorReportsTheStateOfRedis(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--maxmemory", "100000000", "--appendonly", "no"}})
	registry := stateOf(t, server.URL())
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(withoutAOF), "afterwrite_redis_aof_enabled",
		"afterwrite_redis_aof_last_write_ok", "afterwrite_redis_memory_max_bytes", "afterwrite_redis_up"))
	n, err := testutil.GatherAndCount(registry, "afterwrite_redis_memory_used_bytes", "afterwrite_redis_aof_last_rewrite_ok")
	require.NoError(t, err)
	require.Equal(t, 2, n)
}

func TestCollectorReportsTheStateOfAllNodesOfACluster(t *testing.T) {
	t.Parallel()
	_, url := cluster(t, "--maxmemory", "100000000", "--appendonly", "no")
	require.NoError(t, testutil.GatherAndCompare(stateOf(t, url), strings.NewReader(withoutAOF), "afterwrite_redis_aof_enabled",
		"afterwrite_redis_aof_last_write_ok", "afterwrite_redis_memory_max_bytes", "afterwrite_redis_up"))
}

func TestCollectorReportsAnUnreachableRedisAsDown(t *testing.T) {
	t.Parallel()
	registry := stateOf(t, "redis://127.0.0.1:1/0")
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP afterwrite_redis_up 1 while Redis (on a cluster, every node) serves counters to this process, else 0.
# TYPE afterwrite_redis_up gauge
afterwrite_redis_up 0
# HELP afterwrite_uncounted_shards Shards whose Redis node does not answer: their counters are in no gauge, and accept no writes.
# TYPE afterwrite_uncounted_shards gauge
afterwrite_uncounted_shards 1
`)), "and nothing else")
}

// While Redis loads its data, it answers INFO and reports the append-only file as off.
func TestLoadingRedisIsNotUp(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{
		AppendOnly: true, Args: []string{"--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"},
	})
	b := setupOn(t, server.URL())
	filled := b.redis.Pipeline()
	for i := range 10_000 {
		filled.Set(t.Context(), strconv.Itoa(i), "", 0)
	}
	_, err := filled.Exec(t.Context())
	require.NoError(t, err)
	require.NoError(t, b.cache.Ping(t.Context()))
	require.NoError(t, b.redis.BgRewriteAOF(t.Context()).Err()) // one file: while Redis reads it, it answers more often
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info := b.redis.Info(t.Context(), "persistence").Val()
		return strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0"), info
	})
	require.NoError(t, server.Stop(t.Context()))
	started := make(chan error, 1)
	go func() { started <- server.Start(t.Context()) }()

	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		err := b.cache.Ping(t.Context())
		return err != nil && strings.Contains(err.Error(), "LOADING"), fmt.Sprint(err)
	})
	_, err = b.cache.Backlogs(t.Context())
	require.Equal(t, "LOADING", cache.Denial(err))
	seen := gauges(t, b.cache)
	require.Contains(t, seen, "afterwrite_redis_memory_used_bytes", "it answers INFO")
	require.Zero(t, seen["afterwrite_redis_up"])
	require.InDelta(t, testShards, seen["afterwrite_uncounted_shards"], 0)
	for _, name := range []string{"afterwrite_dirty_keys", "afterwrite_redis_aof_enabled", "afterwrite_redis_aof_last_write_ok"} {
		require.NotContains(t, seen, name)
	}

	require.NoError(t, b.redis.ConfigSet(t.Context(), "key-load-delay", "0").Err())
	require.NoError(t, <-started)
	require.NoError(t, b.cache.Ping(t.Context()))
	seen = gauges(t, b.cache)
	require.InDelta(t, 1, seen["afterwrite_redis_up"], 0)
	require.InDelta(t, 1, seen["afterwrite_redis_aof_enabled"], 0)
}

// These rights are enough for everything else: the process runs and accepts writes.
func TestRedisThatForbidsInfoIsUp(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	require.NoError(t, setupOn(t, server.URL()).redis.Do(t.Context(),
		"ACL", "SETUSER", "careful", "on", ">secret", "~*", "&*", "+@all", "-@dangerous").Err())
	b := setupOn(t, "redis://careful:secret@"+server.Addr()+"/0")

	seen := gauges(t, b.cache)

	require.InDelta(t, 1, seen["afterwrite_redis_up"], 0)
	require.Contains(t, seen, "afterwrite_dirty_keys")
	require.NotContains(t, seen, "afterwrite_redis_memory_used_bytes")
	require.NotContains(t, seen, "afterwrite_redis_aof_enabled")
	require.NoError(t, b.cache.Ping(t.Context()))
}
