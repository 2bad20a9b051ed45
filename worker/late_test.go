package worker_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// endLease ends the lease of the key's shard, as if its worker had been suspended for longer.
func (b *testBundle) endLease(t *testing.T, key counter.Key) {
	t.Helper()
	require.NoError(t, b.redis.Del(context.Background(), b.name(key, "drain")).Err())
}

// commitLate commits an epoch, or drops the given keys of it, and reports whether it had an effect.
func (b *testBundle) commitLate(t *testing.T, epoch *cache.Epoch, drop ...counter.Key) bool {
	t.Helper()
	var done bool
	var err error
	if len(drop) > 0 {
		done, err = b.cache.Drop(t.Context(), epoch, drop)
	} else {
		_, done, err = b.cache.Commit(t.Context(), epoch)
	}
	require.NoError(t, err)
	return done
}

// requireUnchanged requires that call does not change the epochs of shard 0.
func (b *testBundle) requireUnchanged(t *testing.T, call func()) {
	t.Helper()
	state := func() []string {
		ctx := context.Background()
		sealed, open := b.redis.SMembers(ctx, b.name("", "sealed")).Val(), b.redis.SMembers(ctx, b.name("", "open")).Val()
		slices.Sort(sealed)
		slices.Sort(open)
		return append([]string{b.redis.Get(ctx, b.name("", "meta")).Val(), fmt.Sprint(sealed)}, open...)
	}
	before := state()
	require.NotEmpty(t, before[0])
	call()
	require.Equal(t, before, state())
}

// A worker is suspended between its upsert and its commit. Meanwhile another flushes the epoch, and a third seals the next one.
func TestLateCommitOfAnEpochThatAnotherCommittedDoesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, increment("a", 1), increment("b", 1))
	late := b.seal(t, 0, "late")
	require.Equal(t, cache.Sealed, late.State)
	b.endLease(t, "a")
	b.drainAll(t)
	b.do(t, increment("a", 1))
	b.requireUnchanged(t, func() { b.commitLate(t, &late) })
	b.drainAll(t) // one more epoch, so that the late one is not the last
	b.do(t, increment("a", 1))
	next := b.seal(t, 0, "next")
	require.Equal(t, cache.Sealed, next.State)

	b.requireUnchanged(t, func() {
		require.False(t, b.commitLate(t, &late))
		require.False(t, b.commitLate(t, &late, "a"))
	})

	require.Equal(t, int64(1), b.backlog(t).Dirty)
	require.False(t, b.do(t, get("a"))[0].Counter.Synced)
	b.endLease(t, "a")
	rows, left := b.drainAll(t)
	require.Equal(t, int64(1), rows)
	require.Zero(t, left)
	b.requireRow(t, counter.Row{Key: "a", Value: 3, Version: 3})
}

// Two workers flush one epoch, because the lease of the first ended. The second commit does nothing.
func TestSecondCommitOfAnEpochDoesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, increment("a", 1))
	first := b.seal(t, 0, "first")
	busy := b.seal(t, 0, "second")
	require.Equal(t, cache.Busy, busy.State)
	b.endLease(t, "a")
	second := b.seal(t, 0, "second")
	require.Equal(t, cache.Found, second.State)
	require.Equal(t, 1, second.Keys)
	b.upsert(t, b.read(t, "a"))
	b.do(t, increment("a", 1)) // in the next epoch

	require.True(t, b.commitLate(t, &second))
	b.requireUnchanged(t, func() { b.commitLate(t, &first) })

	require.Equal(t, int64(1), b.backlog(t).Dirty)
	b.endLease(t, "a")
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 2, Version: 2})
}

// Redis restarts from before the flush set a key of the sealed epoch aside: a commit would lose that key.
func TestLateCommitAfterARestartOfRedisDoesNothing(t *testing.T) {
	t.Parallel()
	b, restart := restartable(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, set("a", 1), set("locked", 1))
	epoch := b.seal(t, 0, "late")
	require.NoError(t, b.redis.Save(context.Background()).Err())
	require.NoError(t, b.cache.SetAside(t.Context(), 0, []counter.Key{"locked"}, time.Hour))
	b.upsert(t, b.read(t, "a"))
	b = restart()

	require.False(t, b.commitLate(t, &epoch, "a", "locked"))
	require.False(t, b.commitLate(t, &epoch))

	require.Equal(t, int64(2), b.backlog(t).Dirty)
	b.endLease(t, "a")
	b.clean(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
	b.requireRow(t, counter.Row{Key: "locked", Value: 1, Version: 1})
}

// The same, but Redis restarts from before the epoch was sealed, and accepts other writes.
func TestLateFlushOfAnEpochThatRedisLostChangesNothing(t *testing.T) {
	t.Parallel()
	b, restart := restartable(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, set("a", 100), set("b", 100))
	b.drainAll(t)
	require.NoError(t, b.redis.Save(context.Background()).Err())
	b.do(t, increment("a", 5), increment("b", 5))
	epoch := b.seal(t, 0, "late")
	lateA, lateB := b.read(t, "a"), b.read(t, "b")
	b.upsert(t, lateB) // this one was flushed before Redis died
	b = restart()
	b.do(t, increment("a", 1), increment("b", 1))
	next := b.seal(t, 0, "next")
	require.Equal(t, cache.Sealed, next.State)

	require.False(t, b.commitLate(t, &epoch))
	require.Equal(t, int64(2), b.backlog(t).Dirty)
	b.endLease(t, "a")
	b.clean(t)
	ahead := b.upsert(t, lateA)

	require.Len(t, ahead, 1)
	b.requireRow(t, counter.Row{Key: "a", Value: 101, Version: 2})
	b.requireRow(t, counter.Row{Key: "b", Value: 106, Version: 3})
	for key, value := range map[counter.Key]int64{"a": 101, "b": 106} {
		got := b.do(t, get(key))[0].Counter
		require.Equal(t, value, got.Value)
		require.True(t, got.Synced)
	}
}
