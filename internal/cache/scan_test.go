package cache_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
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

func (b *testBundle) look(t *testing.T, keys ...counter.Key) []cache.Seen {
	t.Helper()
	seen, err := b.cache.Look(t.Context(), keys)
	require.NoError(t, err)
	require.Len(t, seen, len(keys))
	return seen
}

func (b *testBundle) mend(t *testing.T, how cache.Mending, seen cache.Seen) bool {
	t.Helper()
	done, err := b.cache.Mend(t.Context(), b.cache.Shard(seen.Key), how, []cache.Seen{seen})
	require.NoError(t, err)
	return done[0]
}

func TestEveryEntryIsListedAndLookedAt(t *testing.T) {
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
		for i, seen := range b.look(t, all[:300]...) {
			require.Equal(t, all[i], seen.Key, name)
			require.False(t, seen.Dirty || seen.Missing || seen.Foreign, name)
		}
		b.do(t, increment(all[0], 1))
		require.True(t, b.look(t, all[0])[0].Dirty, name)
		marked := 0
		for s := range testShards {
			require.NoError(t, b.cache.EachMark(t.Context(), counter.Shard(s), func(keys []counter.Key) error {
				require.Equal(t, all[:1], keys)
				marked++
				return nil
			}))
		}
		require.Equal(t, 1, marked, name)
		require.Empty(t, b.ack(t, all[0]))
		require.True(t, b.mend(t, cache.MarkAgain, b.look(t, all[0])[0]), name)
	}
}

func TestLookTellsWhatAnEntryIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "clean", "dirty")
	b.do(t, increment("dirty", 3))
	b.blind(t, increment("blind", 3))
	b.bury(t, "dead")
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey("string"), "x", 0).Err())
	require.NoError(t, b.redis.HSet(t.Context(), b.entryKey("half"), "v", "1").Err())

	seen := b.look(t, "clean", "dirty", "blind", "dead", "string", "half", "none")

	require.False(t, seen[0].Dirty)
	require.True(t, seen[0].Deleted)
	require.True(t, seen[1].Dirty && !seen[1].Dead && seen[1].Value == 3 && seen[1].Life != "")
	require.True(t, seen[2].BaseUnknown && seen[2].Dirty)
	require.True(t, seen[3].Dirty && seen[3].Dead)
	require.True(t, seen[4].Foreign && seen[5].Foreign)
	require.True(t, seen[6].Missing && !seen[6].Dirty)
}

func TestMarkedEntryIsDueAndDoesNotExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "k", Row: counter.Row{Value: 7, Version: 3}, Found: true}, cache.Hydrated)
	seen := b.look(t, "k")[0]
	require.True(t, b.mend(t, cache.MarkAgain, seen))
	require.Equal(t, time.Duration(-1), b.redis.PTTL(t.Context(), b.entryKey("k")).Val())
	e, _ := b.peek(t, "k")
	require.Equal(t, counter.Row{Key: "k", Value: 7, Version: 3}, e.Row)
	require.LessOrEqual(t, e.DirtySince, time.Now().UnixMilli())
	require.False(t, b.mend(t, cache.MarkAgain, seen), "it is dirty already")
	require.False(t, b.mend(t, cache.DropStale, seen), "what is dirty is not dropped")
	require.Empty(t, b.ack(t, "k"))
	require.False(t, b.dirty(t, "k"))
}

func TestDroppedEntryIsNotBroughtBackByWhatWasReadBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	old := cache.Base{Key: "k", Row: counter.Row{Value: 7, Version: 3}, Found: true}
	b.hydrate(t, old, cache.Hydrated)
	old.Generation = b.generation(t, "k")
	require.True(t, b.mend(t, cache.DropStale, b.look(t, "k")[0]))
	require.True(t, b.look(t, "k")[0].Missing)
	b.hydrate(t, old, cache.Stale)
}

func TestEntryThatMovedOnIsNotMended(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, how := range []cache.Mending{cache.MarkAgain, cache.DropStale} {
		b.warm(t, "k")
		seen := b.look(t, "k")[0]
		b.do(t, increment("k", 1))
		require.Empty(t, b.ack(t, "k"))
		before := b.whole(t, "k")
		require.False(t, b.mend(t, how, seen))
		require.Equal(t, before, b.whole(t, "k"))
		require.False(t, b.dirty(t, "k"))
	}
}
