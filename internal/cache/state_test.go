package cache_test

import (
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

// stateOf registers a StateCollector of the Redis at url.
func stateOf(t *testing.T, url string) *prometheus.Registry {
	t.Helper()
	client, err := cache.Connect(url, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	registry := prometheus.NewRegistry()
	registry.MustRegister(cache.New(client, cache.Options{Shards: 1, CleanTTL: time.Hour}).NewStateCollector())
	return registry
}

const withoutAOF = `
# HELP afterwrite_redis_aof_enabled 1 while Redis, on a cluster every node, writes an append-only file, else 0.
# TYPE afterwrite_redis_aof_enabled gauge
afterwrite_redis_aof_enabled 0
# HELP afterwrite_redis_aof_last_write_ok 0 while the last write to the append-only file of Redis, on a cluster of any node, has failed, else 1.
# TYPE afterwrite_redis_aof_last_write_ok gauge
afterwrite_redis_aof_last_write_ok 1
# HELP afterwrite_redis_memory_max_bytes The maxmemory of that Redis; 0: it has none.
# TYPE afterwrite_redis_memory_max_bytes gauge
afterwrite_redis_memory_max_bytes 1e+08
# HELP afterwrite_redis_up 1 while Redis answers this process, else 0.
# TYPE afterwrite_redis_up gauge
afterwrite_redis_up 1
`

func TestStateIsThatOfRedis(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--maxmemory", "100000000", "--appendonly", "no"}})
	registry := stateOf(t, server.URL())
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(withoutAOF), "afterwrite_redis_aof_enabled",
		"afterwrite_redis_aof_last_write_ok", "afterwrite_redis_memory_max_bytes", "afterwrite_redis_up"))
	n, err := testutil.GatherAndCount(registry, "afterwrite_redis_memory_used_bytes", "afterwrite_redis_aof_last_rewrite_ok")
	require.NoError(t, err)
	require.Equal(t, 2, n)
}

func TestStateIsThatOfAllNodesOfACluster(t *testing.T) {
	t.Parallel()
	_, url := cluster(t, "--maxmemory", "100000000", "--appendonly", "no")
	require.NoError(t, testutil.GatherAndCompare(stateOf(t, url), strings.NewReader(withoutAOF), "afterwrite_redis_aof_enabled",
		"afterwrite_redis_aof_last_write_ok", "afterwrite_redis_memory_max_bytes", "afterwrite_redis_up"))
}

func TestStateOfARedisThatIsAwayIsThatItIsDown(t *testing.T) {
	t.Parallel()
	registry := stateOf(t, "redis://127.0.0.1:1/0")
	n, err := testutil.GatherAndCount(registry)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP afterwrite_redis_up 1 while Redis answers this process, else 0.
# TYPE afterwrite_redis_up gauge
afterwrite_redis_up 0
`)))
}
