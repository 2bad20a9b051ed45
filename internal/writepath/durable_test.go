package writepath_test

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// setupDurable opens a write path that can wait for one replica or the disk, on the given Redis.
func setupDurable(t *testing.T, primary *local.Redis) *testBundle {
	t.Helper()
	b := setupWith(t, primary.URL(), localtest.PostgresURL(t, migrate), waitLong)
	b.open(t, 1)
	return b
}

// replicaOf starts a replica of primary and waits until it is synchronized.
func (b *testBundle) replicaOf(t *testing.T, primary *local.Redis) *local.Redis {
	t.Helper()
	address, err := url.Parse(primary.URL())
	require.NoError(t, err)
	password, _ := address.User.Password()
	require.NoError(t, b.redis.ConfigSet(t.Context(), "repl-diskless-sync-delay", "0").Err())
	replica := localtest.OwnRedis(t, local.RedisOptions{Args: []string{
		"--replicaof", address.Hostname() + " " + address.Port(), "--masterauth", password,
	}})
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		info, err := b.redis.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "state=online"), info
	})
	return replica
}

func (b *testBundle) durably(t *testing.T, level writepath.Durability, bound time.Duration, ops ...counter.Operation) []counter.Result {
	t.Helper()
	return b.service.Do(t.Context(), ops, writepath.Options{Durability: level, Wait: bound})
}

func TestWriteWaitsForAReplica(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupDurable(t, primary)
	r := b.durably(t, writepath.OnReplicas, 50*time.Millisecond, op(counter.Set, "a", 5))[0]
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(r.Err), "there is no replica")
	require.Equal(t, int64(5), b.do(t, op(counter.Get, "a", 0))[0].Counter.Value, "it is applied nevertheless")

	replica := b.replicaOf(t, primary)
	r = b.durably(t, writepath.OnReplicas, 20*time.Second, op(counter.Increment, "a", 1))[0]
	require.NoError(t, r.Err)
	require.Equal(t, int64(6), r.Counter.Value)
	there, err := cache.Connect(replica.URL(), 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, there.Close()) })
	value, err := there.Get(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a").Result()
	require.NoError(t, err)
	require.Equal(t, "6", localtest.EntryFields(value)["v"])

	pid := replica.Pid()
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	r = b.durably(t, writepath.OnReplicas, 100*time.Millisecond, op(counter.Increment, "a", 1))[0]
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(r.Err), "the replica is connected, but does not answer")
	require.NoError(t, b.durably(t, writepath.OnReplicas, 20*time.Second, op(counter.Increment, "a", 1))[0].Err)

	replica.Kill()
	r = b.durably(t, writepath.OnReplicas, 100*time.Millisecond, op(counter.Increment, "a", 1))[0]
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(r.Err))
	require.ErrorContains(t, r.Err, "was applied in Redis")
}

func TestReplayWaitsAgain(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupDurable(t, primary)
	o := op(counter.Increment, "a", 1)
	o.ID = "id"
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(b.durably(t, writepath.OnReplicas, 50*time.Millisecond, o)[0].Err))
	b.replicaOf(t, primary)

	r := b.durably(t, writepath.OnReplicas, 20*time.Second, o)[0]

	require.NoError(t, r.Err)
	require.True(t, r.Replayed)
	require.Equal(t, int64(1), r.Counter.Value)
}

// Redis promises WAIT only for what the connection has written, and a repeated write writes nothing but a marker.
func TestReplayOnANewConnectionWaitsForItsWrite(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupDurable(t, primary)
	replica := b.replicaOf(t, primary)
	require.NoError(t, syscall.Kill(replica.Pid(), syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(replica.Pid(), syscall.SIGCONT) })
	other, err := cache.Connect(primary.URL(), 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, other.Close()) })
	o := op(counter.Increment, "a", 1)
	o.ID = "id"
	for range 2 {
		require.Equal(t, counter.CodeNotDurable, counter.CodeOf(b.durably(t, writepath.OnReplicas, 100*time.Millisecond, o)[0].Err))
		require.NoError(t, other.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
	}
	require.NoError(t, syscall.Kill(replica.Pid(), syscall.SIGCONT))
	r := b.durably(t, writepath.OnReplicas, 20*time.Second, o)[0]
	require.NoError(t, r.Err)
	require.True(t, r.Replayed)
	require.Equal(t, int64(1), r.Counter.Value)
	require.Equal(t, int64(1), b.redis.Exists(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:wait").Val())
}

func TestManyWritesShareOneWait(t *testing.T) {
	t.Parallel()
	const callers = 300
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupDurable(t, primary)
	b.replicaOf(t, primary)
	var group sync.WaitGroup
	errs := make(chan error, callers)
	for range callers {
		group.Go(func() {
			errs <- b.service.Do(context.Background(), []counter.Operation{op(counter.Increment, "a", 1)},
				writepath.Options{Durability: writepath.OnReplicas, Wait: 20 * time.Second})[0].Err
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	calls := localtest.Calls(t, b.redis)["wait"]
	t.Logf("%d writes, %d WAITs", callers, calls)
	require.Less(t, calls, 100, "for %d writes", callers)
}

func TestDurabilityOnDiskNeedsFsyncAlways(t *testing.T) {
	t.Parallel()
	always := setupDurable(t, localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"}))
	require.NoError(t, always.durably(t, writepath.OnDisk, 10*time.Second, op(counter.Set, "a", 5))[0].Err)

	none := setupDurable(t, localtest.OwnRedis(t, local.RedisOptions{}))
	require.Equal(t, counter.CodeUnsupportedDurability, counter.CodeOf(none.durably(t, writepath.OnDisk, time.Second, op(counter.Set, "a", 5))[0].Err))
	require.False(t, none.do(t, op(counter.Get, "a", 0))[0].Counter.Exists, "it is refused before it is applied")

	without := setup(t)
	require.Equal(t, counter.CodeUnsupportedDurability,
		counter.CodeOf(without.durably(t, writepath.OnReplicas, time.Second, op(counter.Set, "a", 5))[0].Err))
}

func TestDurabilityInPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.durably(t, writepath.InPostgres, 20*time.Millisecond, op(counter.Set, "a", 5))[0]
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(r.Err))
	result := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{Durability: writepath.InPostgres})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return b.do(t, op(counter.Get, "a", 0))[0].Counter.Version == 2, "not written"
	})
	b.flush(t)
	r = receive(t, result)
	require.NoError(t, r.Err)
	require.True(t, r.Counter.Synced)
}
