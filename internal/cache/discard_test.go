package cache_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func (b *testBundle) rewind(t *testing.T, shown cache.Entry, to counter.Row, want cache.Discarded) {
	t.Helper()
	got, err := b.cache.Rewind(t.Context(), shown, to)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func (b *testBundle) remove(t *testing.T, shown cache.Entry, want cache.Discarded) {
	t.Helper()
	got, err := b.cache.Remove(t.Context(), shown)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestRewindReplacesOnlyTheShownEntry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := b.alike(1)[0]
	b.bury(t, key)
	shown := b.dirtyEntry(t, key)
	to := counter.Row{Key: key, Value: -3, Version: 9}

	b.do(t, increment(key, 1))
	b.rewind(t, shown, to, cache.DiscardWritten)
	b.remove(t, shown, cache.DiscardWritten)
	require.Equal(t, map[string]string{"v": "8", "n": "2", "a": "1"}, b.entry(t, key))

	shown = b.dirtyEntry(t, key)
	b.rewind(t, shown, to, cache.DiscardDone)
	require.Equal(t, map[string]string{"v": "-3", "n": "9", "a": "1"}, b.entry(t, key))
	rewound := b.dirtyEntry(t, key)
	require.Equal(t, int64(8), rewound.Base, "it may replace any older version in Postgres")
	require.Zero(t, rewound.Lineage, "the lineage of the row that the command writes")
	require.Equal(t, []cache.Condition{cache.IsDead}, b.conditions(t, key), "until Postgres has the rewound state")
	b.rewind(t, shown, to, cache.DiscardWritten)

	b.rewind(t, cache.Entry{Row: to}, counter.Row{Key: key, Version: 10, Deleted: true}, cache.DiscardDone)
	require.Equal(t, map[string]string{"v": "0", "n": "10", "x": "1", "a": "1"}, b.entry(t, key))
}

func TestRewindSettlesAnUnknownBase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.blind(t, increment("a", 5))
	require.NoError(t, b.cache.Bury(t.Context(), "a", cache.Dead{Reason: "overflow"}))
	shown := b.dirtyEntry(t, "a")
	require.True(t, shown.BaseUnknown)
	b.rewind(t, shown, counter.Row{Key: "a", Value: 1, Version: 4}, cache.DiscardDone)
	require.Equal(t, map[string]string{"v": "1", "n": "4", "a": "1"}, b.entry(t, "a"))
}

func TestRemoveLeavesNothingAndMakesTokensStale(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := b.alike(1)[0]
	b.bury(t, key)
	before := b.token(t, key)
	shown := b.dirtyEntry(t, key)
	b.remove(t, shown, cache.DiscardDone)

	require.Empty(t, b.entry(t, key))
	require.Empty(t, b.in(t, key), "it was in the open epoch, too")
	require.Equal(t, []cache.Condition{cache.Clean}, b.conditions(t, key))
	b.hydrate(t, cache.Base{Key: key, Found: true, Row: counter.Row{Value: 1, Version: 1}, Token: before}, cache.Stale)
	b.remove(t, shown, cache.DiscardNotDead)
	b.rewind(t, shown, counter.Row{Key: key, Version: 9}, cache.DiscardNotDead)
}

func TestRemoveDeletesACorruptEntry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.bury(t, keys...)
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey(keys[0]), "x", 0).Err())
	require.NoError(t, b.redis.Del(t.Context(), b.entryKey(keys[1])).Err())
	require.NoError(t, b.redis.HSet(t.Context(), b.entryKey(keys[1]), "v", "7", "n", "1").Err())
	require.NoError(t, b.redis.Del(t.Context(), b.entryKey(keys[2])).Err())
	for _, key := range keys {
		shown := b.read(t, key)
		require.True(t, shown.Corrupt || shown.Missing)
		b.remove(t, shown, cache.DiscardDone)
		require.Zero(t, b.redis.Exists(t.Context(), b.entryKey(key)).Val())
	}
	require.Empty(t, b.dead(t))
}

// Dead keys cannot be evicted: if they fill Redis, only redrive and discard make room.
func TestRedriveAndDiscardNeedNoMemory(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL())
	keys := b.alike(2)
	b.bury(t, keys...)
	shown := b.dirtyEntry(t, keys[0])
	b.fill(t)

	row := counter.Row{Key: keys[0], Value: 1, Version: 2}
	b.rewind(t, shown, row, cache.DiscardDone)
	b.remove(t, cache.Entry{Row: row}, cache.DiscardDone)
	redriven, err := b.cache.Redrive(t.Context(), 1, keys[1:])
	require.NoError(t, err)
	require.Equal(t, keys[1:], redriven)
	require.Equal(t, []cache.Condition{cache.Clean, cache.Pending}, b.conditions(t, keys...))
}
