package cache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// bury writes each key once and makes it dead.
func (b *testBundle) bury(t *testing.T, keys ...counter.Key) {
	t.Helper()
	for _, key := range keys {
		b.blind(t, set(key, 7))
		b.hydrate(t, cache.Base{Key: key}, cache.Hydrated)
		require.NoError(t, b.cache.Bury(t.Context(), key, cache.Dead{Reason: "no", Attempts: 3, Since: time.Unix(1000, 0).UTC()}))
	}
}

// dead counts how often each dead key of any shard is listed.
func (b *testBundle) dead(t *testing.T) map[counter.Key]int {
	t.Helper()
	listed := make(map[counter.Key]int)
	for s := range b.cache.Shards() {
		err := b.cache.EachDead(t.Context(), counter.Shard(s), func(notes []cache.Note) error {
			for _, n := range notes {
				listed[n.Key]++
			}
			return nil
		})
		require.NoError(t, err)
	}
	return listed
}

func (b *testBundle) conditions(t *testing.T, keys ...counter.Key) []cache.Condition {
	t.Helper()
	inspected, err := b.cache.Inspect(t.Context(), keys)
	require.NoError(t, err)
	conditions := make([]cache.Condition, len(keys))
	for i := range inspected {
		conditions[i] = inspected[i].Condition()
	}
	return conditions
}

func TestEachDeadListsEveryKeyOnceEvenDuringARedrive(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.Empty(t, b.dead(t))
	keys := b.alike(3000)
	for _, key := range keys {
		// Without entries: only the notes matter here.
		require.NoError(t, b.redis.HSet(t.Context(), "{aw:01}:dead", string(key), `{"reason":"no"}`).Err())
	}
	listed := b.dead(t)
	require.Len(t, listed, len(keys))
	for key, n := range listed {
		require.Equal(t, 1, n, key)
	}

	pages, sum := 0, 0
	err := b.cache.EachDead(t.Context(), 1, func(notes []cache.Note) error {
		page := make([]counter.Key, len(notes))
		for i, n := range notes {
			page[i] = n.Key
		}
		redriven, err := b.cache.Redrive(t.Context(), 1, page)
		require.NoError(t, err)
		require.Equal(t, page, redriven)
		pages, sum = pages+1, sum+len(page)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, len(keys), sum)
	require.GreaterOrEqual(t, pages, 3, "one call must not read all")
	require.Empty(t, b.dead(t))
}

func TestUnreadableNoteHidesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.bury(t, keys...)
	require.NoError(t, b.redis.HSet(t.Context(), "{aw:01}:dead", string(keys[0]), "{").Err())
	reasons := make(map[counter.Key]string)
	require.NoError(t, b.cache.EachDead(t.Context(), 1, func(notes []cache.Note) error {
		for _, n := range notes {
			reasons[n.Key] = n.Reason
		}
		return nil
	}))
	require.Contains(t, reasons[keys[0]], "cannot be read")
	require.Equal(t, "no", reasons[keys[1]])
}

func TestRedrivePutsKeysIntoTheOpenEpochOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.bury(t, keys[:2]...)
	b.warm(t, keys[2])
	b.do(t, increment(keys[0], 5))
	require.Equal(t, []cache.Condition{cache.IsDead, cache.IsDead, cache.Clean}, b.conditions(t, keys...))

	redriven, err := b.cache.Redrive(t.Context(), 1, keys)
	require.NoError(t, err)
	require.Equal(t, keys[:2], redriven)
	require.Equal(t, []cache.Condition{cache.Pending, cache.Pending, cache.Clean}, b.conditions(t, keys...))
	e := b.seal(t, keys[0])
	require.Equal(t, keys[:2], b.keysOf(t, e), "a flush finds them")
	require.False(t, b.read(t, keys[0]).Aside)
	require.Equal(t, map[string]string{"v": "12", "n": "2"}, b.entry(t, keys[0]), "including the writes while it was dead")

	redriven, err = b.cache.Redrive(t.Context(), 1, keys)
	require.NoError(t, err)
	require.Empty(t, redriven)
}

// An operator has given the entry a TTL, or removed the key from the sets.
func TestRedriveRepairsAKeyChangedByHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := b.alike(1)[0]
	b.bury(t, key)
	require.NoError(t, b.redis.Del(t.Context(), "{aw:01}:open", "{aw:01}:sealed").Err())
	require.NoError(t, b.redis.Expire(t.Context(), b.entryKey(key), time.Hour).Err())
	_, err := b.cache.Redrive(t.Context(), 1, []counter.Key{key})
	require.NoError(t, err)
	require.True(t, b.dirty(t, key))
	require.Equal(t, []string{"open"}, b.in(t, key))
	require.Equal(t, time.Duration(-1), b.redis.TTL(t.Context(), b.entryKey(key)).Val(), "a dirty entry does not expire")
}

func TestRedrivenKeyKeepsItsLineage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := b.alike(1)[0]
	b.hydrate(t, cache.Base{Key: key, Found: true, Row: counter.Row{Value: 7, Version: 3}}, cache.Hydrated)
	b.do(t, increment(key, 1))
	was := b.read(t, key)
	e := b.seal(t, key)
	require.NoError(t, b.cache.Bury(t.Context(), key, cache.Dead{Reason: "no"}))
	require.True(t, b.commit(t, e))
	b.do(t, increment(key, 1))
	_, err := b.cache.Redrive(t.Context(), 1, []counter.Key{key})
	require.NoError(t, err)
	is := b.dirtyEntry(t, key)
	require.Equal(t, counter.Row{Key: key, Value: 9, Version: 5, Lineage: was.Lineage, Base: 3, Start: 7, Started: true}, is.Row)
	require.Greater(t, is.Epoch, was.Epoch)
}
