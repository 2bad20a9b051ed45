package cache_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func setupOwn(t *testing.T) *testBundle {
	t.Helper()
	return setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL())
}

func TestFullRedisRefusesWritesAsAWholeButAcceptsCommits(t *testing.T) {
	t.Parallel()
	b := setupOwn(t)
	b.warm(t, "a", "b", "big")
	b.do(t, increment("a", 1), increment("b", 1), set("big", math.MaxInt64-100))
	b.fill(t)
	before := b.contents(t)

	for _, o := range b.do(t, increment("big", 1), increment("a", 1), increment("b", 1)) {
		require.Equal(t, counter.CodeCacheFull, counter.CodeOf(o.Err))
	}
	require.Equal(t, before, b.contents(t), "nothing was half-written")
	b.flush(t, "a")
	require.False(t, b.dirty(t, "a"))
	b.empty(t)
	require.Equal(t, "1", b.entry(t, "b")["v"])
	require.Equal(t, int64(2), b.do(t, increment("b", 1))[0].Value)
}

// Each kind of write to each state of an entry, and the first write after a restart.
func TestFullRedisAppliesNoWriteHalfway(t *testing.T) {
	t.Parallel()
	b := setupOwn(t)
	keys := b.alike(6)
	clean, dirty, old, aside, blind, cold := keys[0], keys[1], keys[2], keys[3], keys[4], keys[5]
	b.warm(t, keys[:4]...)
	b.warm(t, "a", "b", "c", "d")
	b.do(t, increment(clean, 1), increment(old, 1))
	b.flush(t, clean)
	b.do(t, increment(old, 1), increment(aside, 1))
	b.flushAside(t, aside)
	b.do(t, increment(dirty, 1))
	b.blind(t, increment(blind, 1))
	for _, restarted := range []bool{false, true} {
		if restarted {
			b.empty(t)
			b.restart(t)
		}
		b.fill(t)
		before := b.contents(t)
		for _, key := range []counter.Key{clean, dirty, old, aside, "a"} {
			for _, op := range []counter.Operation{increment(key, 1), increment(key, math.MaxInt64-10), set(key, 5), with("id", increment(key, 1))} {
				o := b.do(t, op)[0]
				require.Equal(t, counter.CodeCacheFull, counter.CodeOf(o.Err), "%s %v: %v", key, op, errors.Unwrap(o.Err))
			}
		}
		for _, key := range []counter.Key{blind, cold} {
			require.Equal(t, counter.CodeCacheFull, counter.CodeOf(b.blind(t, increment(key, 1))[0].Err), key)
		}
		for _, o := range b.do(t, increment("a", 1), increment("b", 1), increment("c", 1), increment("d", 1), increment(dirty, 1)) {
			require.Equal(t, counter.CodeCacheFull, counter.CodeOf(o.Err))
		}
		require.Equal(t, int64(1), b.do(t, get(clean))[0].Value, "warm reads are still answered")
		require.True(t, b.do(t, get(cold))[0].Cold)
		require.Equal(t, before, b.contents(t))
	}
}

// Flushing makes room for writes, so none of its steps may need memory.
func TestFullRedisCanBeFlushed(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restarted], func(t *testing.T) {
			t.Parallel()
			b := setupOwn(t)
			keys := b.alike(6)
			b.warm(t, keys...)
			for _, key := range keys[:5] {
				b.do(t, increment(key, 1))
			}
			if restarted {
				b.restart(t)
			}
			b.fill(t)

			e := b.seal(t, keys[0])
			require.Equal(t, cache.Sealed, e.State)
			require.Equal(t, keys[:5], b.keysOf(t, e))
			b.setAside(t, 0, keys[1], keys[2])
			require.NoError(t, b.cache.Bury(t.Context(), keys[3], cache.Dead{Reason: "no"}))
			require.NoError(t, b.cache.Bury(t.Context(), keys[4], cache.Dead{Reason: "no"}))
			require.True(t, b.drop(t, e, keys[1]))
			require.True(t, b.commit(t, e))
			require.False(t, b.dirty(t, keys[0]))
			require.Equal(t, int64(1), b.evict(t, cache.Eviction{Idle: theFuture}))

			b.settle(t, b.read(t, keys[1]))
			require.False(t, b.dirty(t, keys[1]))
			require.Equal(t, keys[2:3], b.requeueDue(t, 1))
			b.setAside(t, time.Hour, keys[2])
			require.NoError(t, b.cache.Requeue(t.Context(), keys[2:3]))
			redriven, err := b.cache.Redrive(t.Context(), 1, keys[3:4])
			require.NoError(t, err)
			require.Equal(t, keys[3:4], redriven)
			require.Equal(t, keys[2:4], b.keysOf(t, b.seal(t, keys[2])))
			b.flush(t, keys[2])

			row := counter.Row{Key: keys[4], Value: 1, Version: 2}
			b.rewind(t, b.read(t, keys[4]), row, cache.DiscardDone)
			b.remove(t, b.read(t, keys[4]), cache.DiscardDone)
			for _, key := range keys {
				require.False(t, b.dirty(t, key))
			}
			require.True(t, b.repair(t, cache.DropStale, b.inspect(t, keys[1])[0]))
			require.NoError(t, b.cache.Release(t.Context(), 1, "test"))
		})
	}
}

func TestFullRedisRebasesAndReconciles(t *testing.T) {
	t.Parallel()
	for _, restarted := range []bool{false, true} {
		t.Run(map[bool]string{false: "running", true: "restarted"}[restarted], func(t *testing.T) {
			t.Parallel()
			b, p := setupOwn(t), postgres{}
			keys := b.alike(3)
			b.warm(t, keys[1:]...)
			b.blind(t, increment(keys[0], 1))
			b.do(t, increment(keys[1], 1), increment(keys[2], 1))
			p[keys[0]] = counter.Row{Key: keys[0], Value: 100, Version: 10, Lineage: 3}
			p[keys[1]] = counter.Row{Key: keys[1], Value: 100, Version: 10, Lineage: 3}                                         // it merges
			p[keys[2]] = counter.Row{Key: keys[2], Value: 100, Version: 10, Lineage: b.dirtyEntry(t, keys[2]).Lineage, Base: 0} // it adopts
			if restarted {
				b.restart(t)
			}
			b.fill(t)

			require.Equal(t, 2, b.drain(t, p))

			for i, want := range []int64{101, 101, 100} {
				require.Equal(t, want, p[keys[i]].Value)
				require.False(t, b.dirty(t, keys[i]))
				require.Equal(t, want, b.do(t, get(keys[i]))[0].Value)
			}
		})
	}
}

func TestFullRedisRefusesARepairAsAWhole(t *testing.T) {
	t.Parallel()
	b := setupOwn(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	seen := b.inspect(t, keys...)
	b.fill(t)
	before := b.contents(t)
	_, err := b.cache.Repair(t.Context(), 1, cache.MarkAgain, seen)
	require.True(t, cache.IsFull(err), "%v", err)
	_, err = b.cache.Hydrate(t.Context(), []cache.Base{{Key: "cold", Token: b.token(t, keys[0])}})
	require.Equal(t, counter.CodeCacheFull, counter.CodeOf(cache.Unapplied(err)))
	require.Equal(t, before, b.contents(t))
}

func TestFullRedisAppliesNoRecordedWriteHalfway(t *testing.T) {
	t.Parallel()
	b := setupOwn(t)
	b.cache = cache.New(b.redis, cache.Options{Shards: testShards, CleanTTL: time.Hour, History: func(counter.Key) bool { return true }})
	b.writer = b.cache.NewWriter(func() bool { return true })
	t.Cleanup(b.writer.Close)
	keys := b.alike(4)
	clean, dirty, blind, stray := keys[0], keys[1], keys[2], keys[3]
	b.warm(t, clean, dirty, stray)
	b.do(t, increment(dirty, 1), increment(stray, 1))
	b.blind(t, increment(blind, 1))
	// Its entry was deleted by hand, and an api without the setting has written it since.
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey(stray), strings.Replace(b.text(t, stray), ":h", "", 1), 0).Err())
	b.fill(t)
	before := b.contents(t)
	for _, op := range []counter.Operation{increment(clean, 1), increment(dirty, 1), set(dirty, 5), increment(blind, 1), increment(stray, 1)} {
		require.Equal(t, counter.CodeCacheFull, counter.CodeOf(b.blind(t, op)[0].Err), op)
	}
	for _, o := range b.do(t, increment(clean, 1), increment(dirty, 1), increment(stray, 1)) {
		require.Equal(t, counter.CodeCacheFull, counter.CodeOf(o.Err))
	}
	require.Equal(t, before, b.contents(t))
	b.empty(t)
	require.NoError(t, b.do(t, increment(stray, 1))[0].Err)
	require.Equal(t, int64(1), b.redis.LLen(t.Context(), b.tag(stray)+":h:"+string(stray)).Val())
}
