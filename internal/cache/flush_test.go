package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestPeekRemovesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", 5))
	for range 2 {
		e, _ := b.peek(t, "a")
		require.Equal(t, counter.Row{Key: "a", Value: 5, Version: 1, Lineage: e.Lineage}, e.Row)
		require.NotZero(t, e.Lineage)
	}
}

func TestAckClearsOnlyTheVersionThatWasCommitted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	e, at := b.peek(t, "a")
	b.do(t, increment("a", 1)) // written during its flush

	committed := []cache.Committed{{Key: "a", Version: e.Version, Life: e.Life}}
	again, err := b.cache.Ack(t.Context(), b.cache.Shard("a"), at, committed)
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"a"}, again)
	require.True(t, b.dirty(t, "a"))
	after, _ := b.peek(t, "a")
	require.Equal(t, at, after.DirtySince, "what is unsynced now was written after the peek")

	require.Empty(t, b.ack(t, "a"))
	require.False(t, b.dirty(t, "a"))
	again, err = b.cache.Ack(t.Context(), b.cache.Shard("a"), at, committed)
	require.NoError(t, err)
	require.Empty(t, again, "a late ack of a clean key is nothing")
}

func TestHydrateRefusesWhatWasReadBeforeAnAck(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// A slow reader found the key cold and has read version 1 from Postgres.
	stale := cache.Base{
		Key: "a", Found: true, Row: counter.Row{Key: "a", Value: 10, Version: 1},
		Generation: b.do(t, get("a"))[0].Generation,
	}
	// Meanwhile another brings it in, writes, flushes version 2, and the clean entry is evicted.
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: stale.Row}, cache.Hydrated)
	b.do(t, increment("a", 1))
	b.ack(t, "a")
	require.NoError(t, b.redis.Del(context.Background(), b.entryKey("a")).Err())

	b.hydrate(t, stale, cache.Stale)
	require.Empty(t, b.entry(t, "a"))
}

func TestHydrateLeavesACompleteEntryAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", 5))
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: counter.Row{Value: 99, Version: 99}}, cache.Hydrated)
	require.Equal(t, map[string]string{"v": "5", "n": "1"}, b.entry(t, "a"))
}

func TestHydrateAddsTheBaseToBlindWritesOnce(t *testing.T) {
	t.Parallel()
	base := counter.Row{Value: 100, Version: 10}
	tombstone := counter.Row{Value: 0, Version: 10, Deleted: true}
	cases := map[string]struct {
		ops  []counter.Operation
		base cache.Base
		want map[string]string
	}{
		"increments on a row": {
			[]counter.Operation{increment("a", 2), increment("a", 3)},
			cache.Base{Key: "a", Row: base, Found: true},
			map[string]string{"v": "105", "n": "12"},
		},
		"increments on nothing": {
			[]counter.Operation{increment("a", 2)},
			cache.Base{Key: "a"},
			map[string]string{"v": "2", "n": "1"},
		},
		"increments on a tombstone": {
			[]counter.Operation{increment("a", 2)},
			cache.Base{Key: "a", Row: tombstone, Found: true},
			map[string]string{"v": "2", "n": "11"},
		},
		"a set on a row": {
			[]counter.Operation{increment("a", 2), set("a", 7), increment("a", 1)},
			cache.Base{Key: "a", Row: base, Found: true},
			map[string]string{"v": "8", "n": "13"},
		},
		"a delete on a row": {
			[]counter.Operation{del("a")},
			cache.Base{Key: "a", Row: base, Found: true},
			map[string]string{"v": "0", "n": "11", "x": "1"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.blind(t, c.ops...)
			b.hydrate(t, c.base, cache.Hydrated)
			b.hydrate(t, c.base, cache.Hydrated)
			require.Equal(t, c.want, b.entry(t, "a"))
			require.True(t, b.dirty(t, "a"))
		})
	}
}

func TestHydrateSaysWhenBaseAndBlindWritesDoNotAddUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.blind(t, increment("a", 1<<62), increment("a", 1<<61))
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: counter.Row{Value: 1 << 62, Version: 1}}, cache.BaseOverflow)
	require.Equal(t, map[string]string{"v": "6917529027641081856", "n": "2", "u": "1"}, b.entry(t, "a"))
}

func TestPeekOldestGoesOldestFirstAndLeavesOutTheParked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var keys []counter.Key
	for c := 'a'; len(keys) < 4; c++ {
		if key := counter.Key(string(c)); b.cache.Shard(key) == 2 {
			keys = append(keys, key)
		}
	}
	b.warm(t, keys...)
	for i, key := range keys {
		b.do(t, increment(key, 1))
		// Set the time instead of waiting for it.
		require.NoError(t, b.redis.ZAdd(context.Background(), "{aw:02}:dirty", redisZ(key, float64(1000*(i+1)))).Err())
	}
	require.NoError(t, b.cache.Park(t.Context(), keys[0], time.Minute))
	require.NoError(t, b.cache.Bury(t.Context(), keys[1], cache.Dead{Reason: "no", Attempts: 3}))

	peeked, err := b.cache.PeekOldest(t.Context(), 2, 10, 0, "me", time.Minute)
	require.NoError(t, err)
	require.Len(t, peeked.Entries, 2)
	require.Equal(t, keys[2], peeked.Entries[0].Key)
	require.Equal(t, keys[3], peeked.Entries[1].Key)
	require.Equal(t, int64(3000), peeked.Entries[0].DirtySince)

	peeked, err = b.cache.PeekOldest(t.Context(), 2, 10, 3500, "me", time.Minute)
	require.NoError(t, err)
	require.Len(t, peeked.Entries, 1, "only what was dirty before the given time")

	named, err := b.cache.Peek(t.Context(), 2, keys, false)
	require.NoError(t, err)
	require.Len(t, named.Entries, 2, "a flush leaves the parked out as well")
	named, err = b.cache.Peek(t.Context(), 2, keys, true)
	require.NoError(t, err)
	require.Len(t, named.Entries, 4, "their retry does not")
}

func TestSecondDrainOfAShardIsTurnedAwayUntilTheFirstEnds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	shard := b.cache.Shard("a")
	peek := func(owner string) cache.Peeked {
		p, err := b.cache.PeekOldest(t.Context(), shard, 10, 0, owner, time.Minute)
		require.NoError(t, err)
		return p
	}
	require.False(t, peek("first").Busy)
	require.True(t, peek("second").Busy)
	require.NoError(t, b.cache.Release(t.Context(), shard, "second"), "not its to release")
	require.True(t, peek("second").Busy)
	require.NoError(t, b.cache.Release(t.Context(), shard, "first"))
	require.Len(t, peek("second").Entries, 1)
}

func TestDeadKeyStaysDirtyTakesWritesAndIsCountedApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "b")
	b.do(t, increment("a", 1), increment("b", 1))
	dead := cache.Dead{Reason: "violates check", Since: time.Now().UTC().Truncate(time.Second), Attempts: 8}
	require.NoError(t, b.cache.Bury(t.Context(), "a", dead))

	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(1), backlog.Dirty)
	require.Equal(t, int64(1), backlog.Dead)
	got, found, err := b.cache.DeadLetter(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, dead, got)
	require.Equal(t, cache.Outcome{Value: 2, Version: 2, Exists: true, Known: true}, b.do(t, increment("a", 1))[0])

	require.Empty(t, b.ack(t, "a")) // Postgres took it after all
	_, found, err = b.cache.DeadLetter(t.Context(), "a")
	require.NoError(t, err)
	require.False(t, found)
}

func TestAKeyThatIsCleanCannotBeBuried(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	require.NoError(t, b.cache.Bury(t.Context(), "a", cache.Dead{}))
	_, found, err := b.cache.DeadLetter(t.Context(), "a")
	require.NoError(t, err)
	require.False(t, found)
}

func TestDirtyKeyWithoutEntryIsSeenAndCleared(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	require.NoError(t, b.redis.Del(context.Background(), b.entryKey("a")).Err())

	e, at := b.peek(t, "a")
	require.True(t, e.Missing)
	again, err := b.cache.Ack(t.Context(), b.cache.Shard("a"), at, []cache.Committed{{Key: "a", Missing: true}})
	require.NoError(t, err)
	require.Empty(t, again)
	require.False(t, b.dirty(t, "a"))
}

func TestOverdueKeysAreCountedByShard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	shard := b.cache.Shard("a")

	counts, err := b.cache.DirtyFor(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, make([]int64, testShards), counts)
	require.NoError(t, b.redis.ZAdd(context.Background(), "{aw:"+shard.String()+"}:dirty", redisZ("a", 1)).Err())
	counts, err = b.cache.DirtyFor(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, int64(1), counts[shard])
	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Greater(t, backlog.Oldest, time.Hour)
}

func TestOtherSettingsAreNamed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.cache.CheckMeta(t.Context()))
	require.NoError(t, b.cache.CheckMeta(t.Context()))
	other := cache.New(b.redis, cache.Options{Shards: testShards + 1, CleanTTL: time.Hour})
	err := other.CheckMeta(t.Context())
	var settings *cache.SettingsError
	require.ErrorAs(t, err, &settings)
	require.Contains(t, err.Error(), "AFTERWRITE_SHARDS=4")

	require.NoError(t, b.redis.HSet(t.Context(), "aw:meta", "layout", "1").Err())
	require.ErrorContains(t, b.cache.CheckMeta(t.Context()), "drain it with the program that wrote them")
}

func TestOneOfThoseThatKnewItNoticesThatARedisWasEmptied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	process := func() *cache.Cache {
		c := cache.New(b.redis, cache.Options{Shards: testShards, CleanTTL: time.Hour})
		require.NoError(t, c.CheckMeta(t.Context()))
		return c
	}
	told := func(caches ...*cache.Cache) (n int) {
		for range 2 {
			for _, c := range caches {
				emptied, err := c.Emptied(t.Context())
				require.NoError(t, err)
				if emptied {
					n++
				}
			}
		}
		return n
	}
	first, second := process(), process()
	require.Zero(t, told(first, second, cache.New(b.redis, cache.Options{Shards: testShards, CleanTTL: time.Hour})), "a first start")

	for range 2 { // it can be lost again
		require.NoError(t, b.redis.FlushDB(context.Background()).Err())
		late := process()
		require.Zero(t, told(late), "it did not know what there was")
		require.Equal(t, 1, told(second, first, late))
	}
}

// Two flushes of one state; between their acks the clean entry was evicted and written blindly.
func TestLateAckLeavesABlindWriteDirty(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	e, at := b.peek(t, "a")
	require.Empty(t, b.ack(t, "a"))
	require.NoError(t, b.redis.Del(context.Background(), b.entryKey("a")).Err())
	b.blind(t, increment("a", 5))

	again, err := b.cache.Ack(t.Context(), b.cache.Shard("a"), at, []cache.Committed{{Key: "a", Version: 1, Life: e.Life}})
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"a"}, again)
	require.True(t, b.dirty(t, "a"))
}
