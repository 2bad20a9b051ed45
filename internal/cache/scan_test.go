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

// entries counts how often EachEntry lists each key.
func (b *testBundle) entries(t *testing.T) (keys map[counter.Key]int, strays []string) {
	t.Helper()
	keys = make(map[counter.Key]int)
	require.NoError(t, b.cache.EachEntry(t.Context(), func(page []counter.Key, astray []string) error {
		require.LessOrEqual(t, len(page), cache.ScanPage)
		for _, key := range page {
			keys[key]++
		}
		strays = append(strays, astray...)
		return nil
	}))
	return keys, strays
}

func (b *testBundle) inspect(t *testing.T, keys ...counter.Key) []cache.Inspected {
	t.Helper()
	seen, err := b.cache.Inspect(t.Context(), keys)
	require.NoError(t, err)
	require.Len(t, seen, len(keys))
	return seen
}

func (b *testBundle) repair(t *testing.T, how cache.Repairing, seen cache.Inspected) bool {
	t.Helper()
	done, err := b.cache.Repair(t.Context(), b.cache.Shard(seen.Key), how, []cache.Inspected{seen})
	require.NoError(t, err)
	return done[0]
}

func TestEveryEntryIsListedAndInspected(t *testing.T) {
	t.Parallel()
	_, clusterURL := cluster(t)
	for name, b := range map[string]*testBundle{"standalone": setup(t), "cluster": setupOn(t, clusterURL)} {
		all := make([]counter.Key, 1200)
		for i := range all {
			all[i] = counter.Key("k}:c:" + strconv.Itoa(i))
		}
		b.warm(t, all...)
		require.NoError(t, b.redis.Set(context.Background(), "{aw:77}:c:elsewhere", "x", 0).Err())
		require.NoError(t, b.redis.Set(context.Background(), "{aw:01}:other", "x", 0).Err())
		keys, strays := b.entries(t)
		require.Len(t, keys, len(all), name)
		require.Equal(t, []string{"{aw:77}:c:elsewhere"}, strays, name)
		for i, seen := range b.inspect(t, all[:300]...) {
			require.Equal(t, all[i], seen.Key, name)
			require.False(t, seen.Dirty || seen.Missing || seen.Corrupt, name)
		}
		b.do(t, increment(all[0], 1))
		require.True(t, b.inspect(t, all[0])[0].Dirty, name)
		marked := 0
		for s := range testShards {
			require.NoError(t, b.cache.EachMember(t.Context(), counter.Shard(s), func(keys []counter.Key) error {
				require.Equal(t, all[:1], keys)
				marked++
				return nil
			}))
		}
		require.Equal(t, 1, marked, name)
		b.flush(t, all[0])
		require.True(t, b.repair(t, cache.MarkAgain, b.inspect(t, all[0])[0]), name)
	}
}

func TestInspectReportsTheConditionOfAnEntry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "clean", "dirty")
	b.do(t, increment("dirty", 3))
	b.blind(t, increment("blind", 3))
	b.bury(t, "dead")
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey("string"), "x", 0).Err())
	require.NoError(t, b.redis.HSet(t.Context(), b.entryKey("half"), "v", "1").Err())

	seen := b.inspect(t, "clean", "dirty", "blind", "dead", "string", "half", "none")

	require.False(t, seen[0].Dirty)
	require.True(t, seen[0].Deleted)
	require.True(t, seen[1].Dirty && !seen[1].Dead && seen[1].Value == 3 && seen[1].Lineage != 0)
	require.True(t, seen[2].BaseUnknown && seen[2].Dirty)
	require.True(t, seen[3].Dirty && seen[3].Dead)
	require.True(t, seen[4].Corrupt && seen[5].Corrupt)
	require.True(t, seen[6].Missing && !seen[6].Dirty)
}

func TestMarkAgainMakesAnEntryDirtyAndPermanent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "k", Row: counter.Row{Value: 7, Version: 3}, Found: true}, cache.Hydrated)
	seen := b.inspect(t, "k")[0]
	require.True(t, b.repair(t, cache.MarkAgain, seen))
	require.Equal(t, time.Duration(-1), b.redis.PTTL(t.Context(), b.entryKey("k")).Val())
	e := b.dirtyEntry(t, "k")
	require.Equal(t, counter.Row{Key: "k", Value: 7, Version: 3, Lineage: e.Epoch, Base: 2}, e.Row, "an older version may be replaced")
	require.Equal(t, []counter.Shard{b.cache.Shard("k")}, b.overdue(t, 0))
	require.False(t, b.repair(t, cache.MarkAgain, seen), "it is dirty already")
	require.False(t, b.repair(t, cache.DropStale, seen), "a dirty entry is not dropped")
	b.flush(t, "k")
	require.False(t, b.dirty(t, "k"))
}

func TestDroppedEntryIsNotHydratedFromARowReadBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := cache.Base{Key: "k", Row: counter.Row{Value: 7, Version: 3}, Found: true}
	b.hydrate(t, old, cache.Hydrated)
	old.Token = b.token(t, "k")
	require.True(t, b.repair(t, cache.DropStale, b.inspect(t, "k")[0]))
	require.True(t, b.inspect(t, "k")[0].Missing)
	b.hydrate(t, old, cache.Stale)
}

func TestChangedEntryIsNotRepaired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, how := range []cache.Repairing{cache.MarkAgain, cache.DropStale} {
		b.warm(t, "k")
		seen := b.inspect(t, "k")[0]
		b.do(t, increment("k", 1))
		b.flush(t, "k")
		before := b.whole(t, "k")
		require.False(t, b.repair(t, how, seen))
		require.Equal(t, before, b.whole(t, "k"))
		require.False(t, b.dirty(t, "k"))
	}
}

// A flush may be completed between two reads of Inspect.
func TestKeyFlushedDuringInspectIsNotStranded(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]func(t *testing.T, b *testBundle){
		"committed": func(t *testing.T, b *testBundle) {
			t.Helper()
			require.True(t, b.commit(t, b.seal(t, "k")))
		},
		"settled": func(t *testing.T, b *testBundle) {
			t.Helper()
			b.flushAside(t, "k")
			b.settle(t, b.read(t, "k"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := localtest.RedisURL(t)
			b := setupOn(t, url)
			b.warm(t, "k")
			b.do(t, increment("k", 1))
			b.redis.AddHook(&afterRead{do: func() { step(t, setupOn(t, url)) }})
			require.False(t, b.inspect(t, "k")[0].Stranded)
			require.False(t, b.inspect(t, "k")[0].Dirty)
		})
	}
}

func TestDirtyKeyRemovedFromItsEpochByHandIsStranded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(5)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1), increment(keys[1], 1), increment(keys[2], 1), increment(keys[3], 1))
	e := b.seal(t, keys[0])
	b.setAside(t, 0, keys[1])
	require.NoError(t, b.cache.Bury(t.Context(), keys[2], cache.Dead{}))
	require.True(t, b.drop(t, e, keys[1:3]...))
	b.do(t, increment(keys[3], 1))
	for _, seen := range b.inspect(t, keys...) {
		require.False(t, seen.Stranded, seen.Key)
		require.Equal(t, seen.Key != keys[4], seen.Dirty, seen.Key)
	}
	require.NoError(t, b.redis.SRem(t.Context(), "{aw:01}:sealed", string(keys[0])).Err())
	require.NoError(t, b.redis.ZRem(t.Context(), "{aw:01}:retry", string(keys[1])).Err())
	require.NoError(t, b.redis.HDel(t.Context(), "{aw:01}:dead", string(keys[2])).Err())
	for i, seen := range b.inspect(t, keys...) {
		require.Equal(t, i < 3, seen.Stranded, seen.Key)
	}
	require.True(t, b.repair(t, cache.MarkAgain, b.inspect(t, keys[0])[0]))
	require.True(t, b.dirty(t, keys[0]))
	b.flush(t, keys[3])
	b.flush(t, keys[0])
	require.False(t, b.dirty(t, keys[0]))
}
