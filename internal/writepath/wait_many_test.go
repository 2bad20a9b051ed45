package writepath_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

const manyWaiters, manyKeys = 10_000, 1_000

// startWaiters starts manyWaiters concurrent operations, spread over manyKeys keys. synced waits for all of them and returns how many were
// synced.
func (b *testBundle) startWaiters(t *testing.T, kind counter.Kind) (synced func() int64) {
	t.Helper()
	for i := range manyKeys {
		b.do(t, op(counter.Set, counter.Key(strconv.Itoa(i)), 1))
	}
	if kind != counter.Get {
		b.flush(t)
	}
	var n atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	for i := range manyWaiters {
		group.Go(func() {
			o := op(kind, counter.Key(strconv.Itoa(i%manyKeys)), 1)
			r := b.service.Do(context.Background(), []counter.Operation{o}, writepath.Options{Wait: waitLong})[0]
			if r.Err != nil {
				failed.Store(&r.Err)
			} else if r.Counter.Synced {
				n.Add(1)
			}
		})
	}
	localtest.Eventually(t, waitLong, func() (bool, string) {
		if err := failed.Load(); err != nil {
			require.NoError(t, *err)
		}
		return writepath.Checked(b.service) == manyWaiters, strconv.Itoa(writepath.Checked(b.service)) + " wait"
	})
	require.Zero(t, n.Load())
	return func() int64 {
		group.Wait()
		return n.Load()
	}
}

// docs/api.md promises that all waiting requests of a process share one subscription, and one read per shard for each commit.
func TestTenThousandReadersShareOneSubscription(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{}) // own server, because the test reads its counts of commands
	b := setupWith(t, server.URL(), localtest.PostgresURL(t, migrate), waitLong)
	synced := b.startWaiters(t, counter.Get)
	subscribers, err := b.redis.PubSubNumSub(t.Context(), "aw:acks").Result()
	require.NoError(t, err)
	require.Equal(t, int64(1), subscribers["aw:acks"])
	before := localtest.Calls(t, b.redis)

	started := time.Now()
	b.flush(t)
	require.Equal(t, int64(manyWaiters), synced())

	took, after := time.Since(started), localtest.Calls(t, b.redis)
	scripts := after["evalsha"] - before["evalsha"]
	t.Logf("%d readers on %d keys: answered %s after the flush began, with %d script calls", manyWaiters, manyKeys, took, scripts)
	require.Less(t, scripts, manyWaiters/10, "many waits share a check, and their reads share calls")
}

// A waiting write does not read its entry: it compares its mark with the watermark.
func TestTenThousandWritersShareOneCheckOfEachShard(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupWith(t, server.URL(), localtest.PostgresURL(t, migrate), waitLong)
	synced := b.startWaiters(t, counter.Increment)
	before := localtest.Calls(t, b.redis)

	started := time.Now()
	b.flush(t)
	flushed := localtest.Calls(t, b.redis)
	took := time.Since(started)
	require.Equal(t, int64(manyWaiters), synced())

	total, after := time.Since(started), localtest.Calls(t, b.redis)
	gets := after["get"] - before["get"]
	t.Logf("%d writers on %d keys: flushed in %s, answered %s after the flush began; "+
		"GET %d, EXISTS %d, MGET %d (%d of them by the flush)",
		manyWaiters, manyKeys, took, total, gets, after["exists"]-before["exists"],
		after["mget"]-before["mget"], flushed["mget"]-before["mget"])
	require.Less(t, after["exists"]-before["exists"], 50,
		"one check per commit (one commit for each of the 4 shards), and one per shard and second")
	require.Equal(t, flushed["mget"], after["mget"], "no entry is read")
	require.Equal(t, flushed["evalsha"], after["evalsha"], "no script is run")
}
