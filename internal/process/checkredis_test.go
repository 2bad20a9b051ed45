package process

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// connect returns a client like those of the program.
func connect(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	client, err := cache.Connect(url, 4)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// ownRedis starts a Redis with these arguments, with AOF and a memory limit, and connects to it.
func ownRedis(t *testing.T, args ...string) redis.UniversalClient {
	t.Helper()
	args = append([]string{"--maxmemory", "64mb"}, args...)
	return connect(t, localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, Args: args}).URL())
}

func withShards(client redis.UniversalClient, shards int) Checks {
	c := cache.New(client, cache.Options{Shards: shards, CleanTTL: time.Hour})
	return Checks{Redis: client, Cache: c}
}

// find returns the finding with the name.
func find(t *testing.T, findings []Finding, name string) Finding {
	t.Helper()
	for _, f := range findings {
		if f.Name == name {
			return f
		}
	}
	require.Failf(t, "not found", "no finding %q in %v", name, findings)
	return Finding{}
}

func TestFitRedisIsOK(t *testing.T) {
	t.Parallel()
	findings := withShards(ownRedis(t), 64).Run(t.Context())

	for _, f := range findings {
		require.Equal(t, OK, f.Status, "%v", f)
		require.Empty(t, f.Fix)
	}
	require.Len(t, findings, 6)
	require.Contains(t, find(t, findings, "redis persistence").Detail, "appendfsync everysec")
	require.Equal(t, OK, Worst(findings))
}

func TestPoliciesThatEvictDirtyEntriesAreRefusedWithTheFix(t *testing.T) {
	t.Parallel()
	client := ownRedis(t)
	for policy, want := range map[string]Status{
		"allkeys-lru": Refused, "allkeys-lfu": Refused, "allkeys-random": Refused,
		"noeviction": OK, "volatile-lru": OK, "volatile-ttl": OK,
	} {
		require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", policy).Err())

		f := find(t, Checks{Redis: client}.Run(t.Context()), "redis memory policy")

		require.Equal(t, want, f.Status, policy)
		require.Contains(t, f.Detail, policy)
		if want == Refused {
			require.Equal(t, "redis-cli CONFIG SET maxmemory-policy noeviction", f.Fix)
		}
	}
}

func TestNoMemoryLimitIsAWarningWithTheFix(t *testing.T) {
	t.Parallel()
	client := ownRedis(t, "--maxmemory", "0")
	for _, policy := range []string{"noeviction", "volatile-lru"} {
		require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", policy).Err())

		f := find(t, Checks{Redis: client}.Run(t.Context()), "redis memory policy")

		require.Equal(t, Warning, f.Status)
		require.Contains(t, f.Detail, policy+", no memory limit")
		require.Regexp(t, `^redis-cli CONFIG SET maxmemory \d+mb, `, f.Fix)
		require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", strings.TrimSuffix(strings.Fields(f.Fix)[4], ",")).Err())
		require.Equal(t, OK, find(t, Checks{Redis: client}.Run(t.Context()), "redis memory policy").Status, "the fix helps")
		require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "0").Err())
	}
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
	require.Equal(t, Refused, find(t, Checks{Redis: client}.Run(t.Context()), "redis memory policy").Status, "the worse finding counts")

	for total, limit := range map[string]string{"8589934592": "4096mb", "": "1gb", "0": "1gb", "x": "1gb", "1048576": "1gb"} {
		info := cache.ParseInfo("total_system_memory:" + total)
		require.Equal(t, limit, spareMemory(&info), total)
	}
	require.Equal(t, OK, checkPolicy(&cache.Info{Policy: "noeviction"}, "redis").Status, "the limit is not reported")
}

func TestAOFOffIsAWarning(t *testing.T) {
	t.Parallel()
	client := connect(t, localtest.OwnRedis(t, local.RedisOptions{}).URL())

	f := find(t, Checks{Redis: client}.Run(t.Context()), "redis persistence")

	require.Equal(t, Warning, f.Status)
	require.Contains(t, f.Detail, "AOF is OFF")
	require.Contains(t, f.Detail, "every write that Postgres does not have yet")
	require.Contains(t, f.Fix, "CONFIG SET appendonly yes")
}

func TestAppendfsyncIsReported(t *testing.T) {
	t.Parallel()
	client := ownRedis(t)
	for fsync, want := range map[string]Status{"always": OK, "everysec": OK, "no": Warning} {
		require.NoError(t, client.ConfigSet(t.Context(), "appendfsync", fsync).Err())
		f := find(t, Checks{Redis: client}.Run(t.Context()), "redis persistence")
		require.Equal(t, want, f.Status, fsync)
		require.Contains(t, f.Detail, "appendfsync "+fsync)
	}
}

func TestForbiddenCommandsLeaveChecksOpen(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true})
	admin := connect(t, server.URL())
	for user, rights := range map[string][]any{
		"noconfig": {"+@all", "-config"},
		"noinfo":   {"+@all", "-info"},
	} {
		args := append([]any{"ACL", "SETUSER", user, "on", ">secret", "~*"}, rights...)
		require.NoError(t, admin.Do(t.Context(), args...).Err())
	}
	as := func(user string) []Finding {
		return Checks{Redis: connect(t, "redis://"+user+":secret@"+server.Addr()+"/0")}.Run(t.Context())
	}

	noConfig := find(t, as("noconfig"), "redis persistence")
	require.Equal(t, Warning, noConfig.Status)
	require.Contains(t, noConfig.Detail, "could not check appendfsync")

	// Every write asks INFO which incarnation of Redis this is.
	noInfo := find(t, as("noinfo"), "redis permissions")
	require.Equal(t, Refused, noInfo.Status)
	require.Contains(t, noInfo.Detail, "+info")
}

func TestReplicaIsRefused(t *testing.T) {
	t.Parallel()
	client := ownRedis(t, "--replicaof", "127.0.0.1 1")

	f := find(t, Checks{Redis: client}.Run(t.Context()), "redis")

	require.Equal(t, Refused, f.Status)
	require.Contains(t, f.Detail, "replica")
}

func TestRedisThatDoesNotAnswerIsRefused(t *testing.T) {
	t.Parallel()
	findings := Checks{Redis: connect(t, "redis://user:hunter2@127.0.0.1:1/0")}.Run(t.Context())

	require.Len(t, findings, 1)
	require.Equal(t, Refused, findings[0].Status)
	require.Contains(t, findings[0].Fix, "REDIS_URL")
	require.NotContains(t, findings[0].String(), "hunter2")
}

func TestClusterThatIsDownIsRefused(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--cluster-enabled", "yes"}})
	// One slot has no node, so the cluster serves none.
	require.NoError(t, connect(t, server.URL()).Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 1, 16383).Err())
	client := connect(t, strings.Replace(server.URL(), "redis://", "redis-cluster://", 1))
	require.NoError(t, client.Ping(t.Context()).Err())

	f := find(t, withShards(client, 64).Run(t.Context()), "redis")

	require.Equal(t, Refused, f.Status)
	require.Contains(t, f.Detail, "CLUSTERDOWN")
}

func TestOldRedisIsRefused(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]Status{
		"6.2.0": OK, "6.2": OK, "7.0.15": OK, "8.2.1": OK, "10.0.0": OK,
		"6.0.16": Refused, "5.0.7": Refused, "2.8.19": Refused, "": Refused, "unknown": Refused,
	} {
		f := checkVersion(&cache.Info{Version: version, Role: "master"}, "redis")
		require.Equal(t, want, f.Status, version)
	}
}

func TestOtherSettingsThanThoseInRedisAreRefused(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	require.NoError(t, withShards(client, 64).Cache.CheckMeta(t.Context()))

	require.Equal(t, OK, find(t, withShards(client, 64).Run(t.Context()), "redis layout").Status)
	f := find(t, withShards(client, 32).Run(t.Context()), "redis layout")

	require.Equal(t, Refused, f.Status)
	require.Equal(t, "set AFTERWRITE_SHARDS to 64", f.Fix)
}

func TestDoctorDoesNotStoreSettings(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)

	f := find(t, withShards(client, 32).Run(t.Context()), "redis layout")

	require.Equal(t, OK, f.Status)
	keys, err := client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	require.Empty(t, keys)
}

func TestEveryMasterOfAClusterIsChecked(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{
		AppendOnly: true, Args: []string{"--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1", "--maxmemory", "64mb"},
	})
	single := connect(t, server.URL())
	require.NoError(t, single.ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info, err := single.ClusterInfo(t.Context()).Result()
		require.NoError(t, err)
		return strings.Contains(info, "cluster_state:ok"), info
	})
	options := single.(*redis.Client).Options()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{options.Addr}, Password: options.Password})
	t.Cleanup(func() { require.NoError(t, client.Close()) })

	findings := Checks{Redis: client}.Run(t.Context())

	require.Equal(t, OK, find(t, findings, "redis "+options.Addr+" memory policy").Status)
	require.Equal(t, OK, find(t, findings, "redis "+options.Addr+" persistence").Status)
}

func TestChecksAreBoundedInTime(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	findings := Checks{Redis: localtest.Redis(t)}.Run(ctx)

	require.Equal(t, Refused, Worst(findings))
}
