package cache_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestReadingAnEpochRemovesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", 5))
	for range 2 {
		e := b.seal(t, "a")
		require.Equal(t, []counter.Key{"a"}, b.keysOf(t, e))
		got := b.dirtyEntry(t, "a")
		require.Equal(t, counter.Row{Key: "a", Value: 5, Version: 1, Lineage: got.Epoch}, got.Row)
		require.NotZero(t, got.Lineage)
	}
}

func TestCommitMakesTheWholeEpochCleanAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(4)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1), increment(keys[1], 1), increment(keys[2], 1))
	e := b.seal(t, keys[0])
	b.do(t, increment(keys[1], 1), increment(keys[3], 1)) // written during its flush
	require.Equal(t, keys[:3], b.keysOf(t, e))

	left, done, err := b.cache.Commit(t.Context(), e)
	require.NoError(t, err)
	require.True(t, done)
	require.Equal(t, int64(2), left, "the keys written meanwhile")

	for i, want := range []bool{false, true, false, true} {
		require.Equal(t, want, b.dirty(t, keys[i]), keys[i])
	}
	require.False(t, b.do(t, get(keys[1]))[0].Synced)
	require.True(t, b.do(t, get(keys[2]))[0].Synced)
	require.Equal(t, keys[1:2], b.keysOf(t, b.seal(t, keys[0]))[:1], "the keys written meanwhile are in the next epoch")
	require.Len(t, b.keysOf(t, b.seal(t, keys[0])), 2)
}

func TestKeyWrittenDuringItsFlushIsFlushedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	first := b.seal(t, "a")
	o := b.do(t, increment("a", 1))[0]
	require.Zero(t, o.Backlog, "it was dirty before")
	require.True(t, b.commit(t, first))
	require.True(t, b.dirty(t, "a"))

	b.flush(t, "a")
	require.False(t, b.dirty(t, "a"))
	require.Equal(t, cache.Nothing, b.take(t, b.cache.Shard("a"), cache.Taking{}).State)
}

func TestSealingTwiceFindsTheSameEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	shard := b.cache.Shard(keys[0])
	require.Equal(t, cache.Nothing, b.take(t, shard, cache.Taking{}).State)
	b.do(t, increment(keys[0], 1))

	first := b.take(t, shard, cache.Taking{})
	require.Equal(t, cache.Sealed, first.State)
	require.Equal(t, 1, first.Keys)
	sealed := b.meta(t, keys[0])["sealed"]
	b.do(t, increment(keys[0], 1), increment(keys[1], 1))
	second := b.take(t, shard, cache.Taking{})

	require.Equal(t, cache.Found, second.State)
	require.Equal(t, 1, second.Keys, "writes meanwhile go to the open epoch")
	require.Equal(t, first.Since, second.Since)
	meta := b.meta(t, keys[0])
	require.Equal(t, sealed, meta["sealed"])
	require.Greater(t, number36(t, meta["open"]), number36(t, sealed), "the open epoch has another ID")
	require.True(t, b.commit(t, second), "they are the same")
	require.Equal(t, sealed, b.meta(t, keys[0])["watermark"])
	require.Equal(t, keys, b.keysOf(t, b.seal(t, keys[0])))
}

func TestCommitOfAnotherEpochDoesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1))
	old := b.seal(t, keys[0])
	require.True(t, b.commit(t, old))
	before := b.contents(t)
	require.True(t, b.commit(t, old), "it may be repeated")
	require.True(t, b.drop(t, old, keys...))
	require.Equal(t, before, b.contents(t))

	b.do(t, increment(keys[0], 1), increment(keys[1], 1))
	now := b.seal(t, keys[0])
	before = b.contents(t)
	b.commit(t, old)
	b.drop(t, old, keys...)
	require.Equal(t, before, b.contents(t), "it drops nothing from another epoch")
	require.Equal(t, keys, b.keysOf(t, now))
	require.True(t, b.commit(t, now))
	require.False(t, b.commit(t, old))
	require.False(t, b.drop(t, old, keys...))
}

func TestCommitLeavesTheEpochOfAnotherIncarnationAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "b")
	b.do(t, increment("a", 1))
	before := b.seal(t, "a")
	b.restart(t) // the same epoch is sealed, but Redis has lost what this flush did meanwhile

	require.False(t, b.drop(t, before, "a"))
	require.False(t, b.commit(t, before))

	require.True(t, b.dirty(t, "a"))
	after := b.take(t, b.cache.Shard("a"), cache.Taking{})
	require.Equal(t, cache.Found, after.State)
	require.Equal(t, []counter.Key{"a"}, b.keysOf(t, after))
	require.True(t, b.commit(t, after), "it is committed after another flush")
	require.False(t, b.dirty(t, "a"))
}

func TestDroppedKeysAreNotRepeatedAndTheOthersStay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1), increment(keys[1], 1), increment(keys[2], 1))
	first := b.seal(t, keys[0])
	b.do(t, increment(keys[1], 1))
	require.True(t, b.drop(t, first, keys[:2]...))
	require.True(t, b.drop(t, first))

	// The worker dies. Another takes over.
	second := b.seal(t, keys[0])
	require.Equal(t, 1, second.Keys)
	require.Equal(t, keys[2:], b.keysOf(t, second))
	require.True(t, b.commit(t, second))
	require.Equal(t, []bool{false, true, false}, []bool{b.dirty(t, keys[0]), b.dirty(t, keys[1]), b.dirty(t, keys[2])})
}

func TestLargeEpochIsReadCompletelyInPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 2500
	want := make(map[counter.Key]bool, n)
	keys := b.alike(n)
	for from := 0; from < n; from += cache.MaxWrites {
		ops := make([]counter.Operation, 0, cache.MaxWrites)
		for _, key := range keys[from : from+cache.MaxWrites] {
			ops = append(ops, increment(key, 1))
			want[key] = true
		}
		for _, o := range b.blind(t, ops...) {
			require.NoError(t, o.Err)
		}
	}
	e := b.seal(t, keys[0])
	require.Equal(t, n, e.Keys)
	pages := 0
	for cursor := uint64(0); ; pages++ {
		page, next, err := b.cache.EpochKeys(t.Context(), e, cursor, 200)
		require.NoError(t, err)
		require.Less(t, len(page), n/2, "one call must not read all")
		for _, key := range page {
			delete(want, key)
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	require.Empty(t, want)
	require.Greater(t, pages, 3)
	require.True(t, b.drop(t, e, keys[:2200]...), "more than Lua passes to one command")
	require.Equal(t, n-2200, b.seal(t, keys[0]).Keys)

	all, next, err := b.cache.EpochKeys(t.Context(), b.seal(t, keys[0]), 0, n)
	require.NoError(t, err)
	require.Zero(t, next)
	require.ElementsMatch(t, keys[2200:], all)
}

func TestSecondFlushOfAShardIsTurnedAwayUntilTheFirstEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	shard := b.cache.Shard("a")
	take := func(owner string) cache.SealState {
		return b.take(t, shard, cache.Taking{Owner: owner, Lease: time.Minute}).State
	}
	require.Equal(t, cache.Sealed, take("first"))
	require.Equal(t, cache.Busy, take("second"))
	require.Equal(t, cache.Found, take("first"), "its own lease does not stop it")
	require.NoError(t, b.cache.Release(t.Context(), shard, "second"), "another owner's release does nothing")
	require.Equal(t, cache.Busy, take("second"))
	require.NoError(t, b.cache.Release(t.Context(), shard, "first"))
	require.Equal(t, cache.Found, take("second"))
}

func TestLeaseExpiresUnlessItIsExtended(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	shard := b.cache.Shard("a")
	drain := b.tag("a") + ":drain"

	require.Equal(t, cache.Sealed, b.take(t, shard, cache.Taking{Owner: "first", Lease: 40 * time.Millisecond}).State)
	require.LessOrEqual(t, b.redis.PTTL(t.Context(), drain).Val(), 40*time.Millisecond)
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		e := b.take(t, shard, cache.Taking{Owner: "second", Lease: time.Minute})
		return e.State == cache.Found, string(e.State)
	})
	require.NoError(t, b.cache.Extend(t.Context(), shard, time.Hour))
	require.Greater(t, b.redis.PTTL(t.Context(), drain).Val(), 59*time.Minute)
}

// A shard with nothing to flush yet is not taken: another worker may do its next flush.
func TestShardIsTakenOnlyForAFlush(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	shard := b.cache.Shard("a")
	first := cache.Taking{Owner: "first", Lease: time.Minute, MinAge: time.Hour}
	require.Equal(t, cache.Nothing, b.take(t, shard, first).State)
	require.Zero(t, b.redis.Exists(t.Context(), b.tag("a")+":drain").Val())
	b.do(t, increment("a", 1))
	require.Equal(t, cache.Early, b.take(t, shard, first).State)
	require.Zero(t, b.redis.Exists(t.Context(), b.tag("a")+":drain").Val())
	require.Equal(t, cache.Sealed, b.take(t, shard, cache.Taking{Owner: "second", Lease: time.Minute}).State)
}

func TestYoungEpochIsLeftAloneUnlessItIsLarge(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1), increment(keys[1], 1))

	early := b.take(t, 1, cache.Taking{MinAge: time.Hour})
	require.Equal(t, cache.Early, early.State)
	require.Equal(t, 2, early.Keys)
	require.InDelta(t, early.At, early.Since, 60_000)
	require.Equal(t, cache.Early, b.take(t, 1, cache.Taking{MinAge: time.Hour, Keys: 3}).State)
	require.Empty(t, b.meta(t, keys[0])["sealed"])
	b.do(t, increment(keys[2], 1))
	large := b.take(t, 1, cache.Taking{MinAge: time.Hour, Keys: 3})
	require.Equal(t, cache.Sealed, large.State)
	require.Equal(t, early.Since, large.Since)
	require.Equal(t, cache.Found, b.take(t, 1, cache.Taking{MinAge: time.Hour, Keys: 100}).State, "a sealed epoch is flushed whatever its age")
	require.True(t, b.commit(t, large))

	b.do(t, increment(keys[0], 1))
	since := early.At - 2*time.Hour.Milliseconds()
	b.setMeta(t, keys[0], "since", strconv.FormatInt(since, 10))
	old := b.take(t, 1, cache.Taking{MinAge: time.Hour})
	require.Equal(t, cache.Sealed, old.State)
	require.Equal(t, since, old.Since)
	require.GreaterOrEqual(t, old.At, early.At)
}

// The first write sets the age, not the last.
func TestEpochIsAsOldAsItsFirstWrite(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	require.Empty(t, b.meta(t, keys[0])["since"])
	b.do(t, increment(keys[0], 1))
	first := b.meta(t, keys[0])["since"]
	require.NotEmpty(t, first)
	now, err := b.cache.Now(t.Context())
	require.NoError(t, err)
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		later, err := b.cache.Now(t.Context())
		require.NoError(t, err)
		return later > now, "redis's clock stands still"
	})
	b.do(t, increment(keys[1], 1))
	require.Equal(t, first, b.meta(t, keys[0])["since"])

	e := b.seal(t, keys[0])
	require.Equal(t, first, strconv.FormatInt(e.Since, 10))
	require.Empty(t, b.meta(t, keys[0])["since"])
	b.do(t, increment(keys[1], 1))
	require.Greater(t, b.meta(t, keys[0])["since"], first)
}

func TestSealCountsDueSetAsideKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(4)
	b.warm(t, keys...)
	for _, key := range keys {
		b.do(t, increment(key, 1))
	}
	b.setAside(t, 0, keys[0], keys[1])
	b.setAside(t, time.Hour, keys[2])
	require.Equal(t, 2, b.take(t, 1, cache.Taking{MinAge: time.Hour}).Due)
	e := b.seal(t, keys[0])
	require.Equal(t, 2, e.Due)
	require.True(t, b.commit(t, e))
	none := b.take(t, 1, cache.Taking{})
	require.Equal(t, cache.Nothing, none.State)
	require.Equal(t, 2, none.Due)
}

func TestDirtyKeyWithoutEntryIsFoundAndCleared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	require.NoError(t, b.redis.Del(context.Background(), b.entryKey("a")).Err())
	require.True(t, b.dirty(t, "a"))

	e := b.seal(t, "a")
	require.Equal(t, []counter.Key{"a"}, b.keysOf(t, e))
	require.True(t, b.read(t, "a").Missing)
	require.True(t, b.commit(t, e))
	require.False(t, b.dirty(t, "a"))
}

// Two flushes of one epoch; between their commits the clean entry was evicted and written blindly.
func TestLateCommitLeavesABlindWriteDirty(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	late := b.seal(t, "a")
	b.flush(t, "a")
	require.NoError(t, b.redis.Del(context.Background(), b.entryKey("a")).Err())
	b.blind(t, increment("a", 5))

	b.commit(t, late)
	require.True(t, b.dirty(t, "a"))
}

// The ID was removed by hand: the sealed epoch must be flushed nevertheless.
func TestSealedEpochWithoutAnIDGetsOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.seal(t, "a")
	b.setMeta(t, "a", "sealed", "0")
	b.flush(t, "a")
	require.False(t, b.dirty(t, "a"))
}

// The worker that dropped the keys died before its commit, and nothing is written afterwards.
func TestDroppingTheLastKeyCommitsTheEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1), increment(keys[1], 1))
	e := b.seal(t, keys[0])
	require.True(t, b.drop(t, e, keys[0]))
	require.True(t, b.dirty(t, keys[1]))
	require.True(t, b.drop(t, e, keys[1]))

	require.False(t, b.dirty(t, keys[0]) || b.dirty(t, keys[1]))
	require.True(t, b.do(t, get(keys[0]))[0].Synced)
	require.True(t, b.commit(t, e), "the worker that dropped them may still commit")
	require.Equal(t, cache.Nothing, b.take(t, 1, cache.Taking{}).State)
	b.do(t, increment(keys[0], 1))
	require.True(t, b.commit(t, e))
	require.True(t, b.dirty(t, keys[0]))
	b.flush(t, keys[0])
}
