package convert_test

import (
	"context"
	"log/slog"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/convert"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// cluster starts a cluster of two masters, each with half of the slots.
func cluster(t *testing.T) (clusterURL string) {
	t.Helper()
	args := []string{"--cluster-enabled", "yes"}
	first := localtest.OwnRedis(t, local.RedisOptions{Args: args})
	second := localtest.OwnRedis(t, local.RedisOptions{Args: args})
	a, b := connect(t, first.URL()), connect(t, second.URL())
	at, err := url.Parse(first.URL())
	require.NoError(t, err)
	password, _ := at.User.Password()
	require.NoError(t, b.ConfigSet(t.Context(), "requirepass", password).Err()) // the client has one for all nodes
	require.NoError(t, a.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 8191).Err())
	require.NoError(t, b.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 8192, 16383).Err())
	require.NoError(t, b.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", 1).Err())
	require.NoError(t, b.Do(t.Context(), "CLUSTER", "MEET", at.Hostname(), at.Port()).Err())
	for _, node := range []redis.UniversalClient{a, b} {
		localtest.Eventually(t, patience, func() (bool, string) {
			info := node.ClusterInfo(t.Context()).Val()
			return strings.HasPrefix(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_assigned:16384"), info
		})
	}
	return strings.Replace(first.URL(), "redis://", "redis-cluster://", 1)
}

// all returns the dumps of all nodes together.
func (b *testBundle) all(t *testing.T) map[string]string {
	t.Helper()
	clusterClient, ok := b.redis.(*redis.ClusterClient)
	require.True(t, ok)
	all := make(map[string]string)
	nodes := make(chan *redis.Client, 2)
	require.NoError(t, clusterClient.ForEachMaster(t.Context(), func(_ context.Context, node *redis.Client) error {
		nodes <- node
		return nil
	}))
	for range 2 {
		part := testBundle{redis: <-nodes}
		for name, value := range part.dump(t) {
			require.NotContains(t, all, name)
			all[name] = value
		}
	}
	return all
}

func TestAClusterIsConvertedToo(t *testing.T) {
	t.Parallel()
	whole := setup(t)
	whole.convert(t, 16)
	want := whole.dump(t)

	t.Run("at once", func(t *testing.T) {
		t.Parallel()
		b := setupOn(t, cluster(t))
		b.convert(t, 16)
		require.Equal(t, want, b.all(t))
	})
	t.Run("by processes that die", func(t *testing.T) {
		t.Parallel()
		b := setupOn(t, cluster(t))
		t.Logf("%d deaths", b.convertDying(t, 40))
		b.cache(t, 16)
		require.Equal(t, want, b.all(t))
	})
	t.Run("while another stalls", func(t *testing.T) {
		t.Parallel()
		b := setupOn(t, cluster(t))
		s := newStall("put")
		ended := b.runStalled(t, s)
		b.convert(t, 16)
		close(s.release)
		require.ErrorContains(t, <-ended, "CONVERTED")
		require.Equal(t, want, b.all(t))
	})
}

// full returns a Redis at maxmemory, which accepts no further key.
func full(t *testing.T) *testBundle {
	t.Helper()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL())
	for i := range 2000 {
		key := counter.Key("filler" + strconv.Itoa(i))
		require.NoError(t, b.redis.Set(t.Context(), "{aw:"+key.Shard(64).String()+"}:c:"+string(key), strconv.Itoa(i)+" 1", 0).Err())
	}
	require.NoError(t, b.redis.ConfigSet(t.Context(), "maxmemory", "1mb").Err())
	require.ErrorContains(t, b.redis.Set(t.Context(), "k", "v", 0).Err(), "OOM")
	return b
}

func TestAFullRedisIsConverted(t *testing.T) {
	t.Parallel()
	b := full(t)
	_, err := convert.Run(t.Context(), b.options())
	require.NoError(t, err)
	require.NoError(t, b.redis.ConfigSet(t.Context(), "maxmemory", "0").Err())
	c := b.cache(t, 16)
	want := setup(t)
	want.convert(t, 16)
	got := b.dump(t)
	for i := range 2000 {
		key := counter.Key("filler" + strconv.Itoa(i))
		name := "{aw:" + c.Shard(key).String() + "}:c:" + string(key)
		require.Equal(t, `"`+strconv.Itoa(i)+` 1 0" ttl false`, got[name])
		delete(got, name)
	}
	require.Equal(t, want.dump(t), got)
}

func TestNoCallBlocksRedisForLong(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := &testBundle{redis: connect(t, server.URL()), log: new(localtest.Buffer)}
	fill(t, b.redis, 20_000)
	require.NoError(t, b.redis.ConfigSet(t.Context(), "slowlog-log-slower-than", "0").Err())
	require.NoError(t, b.redis.ConfigSet(t.Context(), "slowlog-max-len", "100000").Err())
	b.convert(t, 16)
	calls, slow := 0, 0
	for _, entry := range b.redis.SlowLogGet(t.Context(), 100_000).Val() {
		calls++
		if entry.Duration > 2*time.Millisecond {
			slow++
		}
	}
	t.Logf("%d of %d calls took more than 2 ms", slow, calls)
	require.Less(t, slow, calls/20, "other processes of this machine may delay a few calls")
}

// fill writes n counters of layout 2 to 64 shards. Half of them are dirty.
func fill(t testing.TB, client redis.UniversalClient, n int) {
	t.Helper()
	require.NoError(t, client.HSet(t.Context(), cache.SettingsKey, "layout", "2", "AFTERWRITE_SHARDS", "64", "birth", "X").Err())
	now := time.Now()
	pipe := client.Pipeline()
	for i := range n {
		key := counter.Key("page:" + strconv.Itoa(1_000_000+i))
		tag := "{aw:" + key.Shard(64).String() + "}"
		if i%2 == 0 {
			pipe.Set(t.Context(), tag+":c:"+string(key), strconv.Itoa(i)+" 7", time.Hour)
		} else {
			lineage := "e57b17e41" + strconv.FormatInt(now.UnixMicro()-int64(n-i), 10)
			pipe.Set(t.Context(), tag+":c:"+string(key), strconv.Itoa(i+5)+" 9 "+lineage+" b7 w"+strconv.Itoa(i), 0)
			pipe.ZAdd(t.Context(), tag+":dirty", redis.Z{Score: float64(now.UnixMilli()), Member: string(key)})
		}
		if pipe.Len() >= 1000 || i == n-1 {
			_, err := pipe.Exec(t.Context())
			require.NoError(t, err)
		}
	}
}

// BenchmarkConvert converts 100,000 counters, half of them dirty, from 64 shards to 16.
func BenchmarkConvert(b *testing.B) {
	client, err := cache.Connect(localtest.RedisURL(b), 4)
	require.NoError(b, err)
	b.Cleanup(func() { _ = client.Close() })
	const keys = 100_000
	for b.Loop() {
		b.StopTimer()
		require.NoError(b, client.FlushDB(b.Context()).Err())
		fill(b, client, keys)
		b.StartTimer()
		done, err := convert.Run(b.Context(), convert.Options{Redis: client, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(b, err)
		require.EqualValues(b, keys, done.Entries)
	}
	b.ReportMetric(float64(keys*b.N)/b.Elapsed().Seconds(), "keys/s")
}
