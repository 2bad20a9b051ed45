package operate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// shardSet returns the Redis key of a set of the key's shard: open, sealed, retry or dead.
func (b *testBundle) shardSet(key counter.Key, name string) string {
	return "{aw:" + b.cache.Shard(key).String() + "}:" + name
}

// strand removes a key from the open epoch, as an operator may do by hand. After that no flush finds the key, and no write puts
// it back.
func (b *testBundle) strand(t *testing.T, key counter.Key) {
	t.Helper()
	require.Equal(t, int64(1), b.redis.SRem(t.Context(), b.shardSet(key, "open"), string(key)).Val())
}

func (b *testBundle) requireValue(t *testing.T, key counter.Key, value int64) {
	t.Helper()
	rows, err := b.store.Read(t.Context(), []counter.Key{key})
	require.NoError(t, err)
	require.Contains(t, rows, key)
	require.Equal(t, value, rows[key].Value)
}

// requireAhead requires that verify finds exactly one entry, which is ahead of its row, and repairs it.
func (b *testBundle) requireAhead(t *testing.T) {
	t.Helper()
	for _, repair := range []bool{false, true} {
		report := b.verify(t, repair)
		require.Equal(t, map[operate.Class]int64{operate.ClassAhead: 1}, report.Counts)
		require.Equal(t, repair, report.Unrepaired == 0)
	}
	b.drainAll(t)
	require.Equal(t, map[operate.Class]int64{operate.ClassEqual: 1}, b.verify(t, false).Counts)
}

func TestStrandedEntryIsRepaired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "k", 1)
	b.strand(t, "k")
	b.set(t, "k", 2)
	b.drainAll(t)
	b.requireAhead(t)
	b.requireValue(t, "k", 2)
}

// A worker upserted the row and died. Nothing differs yet, but the next write would not be flushed.
func TestStrandedEntryThatEqualsItsRowIsRepaired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "k", 1)
	snapshot, err := b.cache.Read(t.Context(), b.cache.Shard("k"), []counter.Key{"k"})
	require.NoError(t, err)
	_, err = b.store.Upsert(t.Context(), []counter.Row{snapshot.Entries[0].Row})
	require.NoError(t, err)
	b.strand(t, "k")
	b.requireAhead(t)
}

// Flushes of other keys have moved the watermark past the entry's epoch, so the entry looks clean.
func TestStrandedEntryBelowTheWatermarkIsRepaired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "k", 1)
	b.drainAll(t)
	b.set(t, "k", 2)
	b.strand(t, "k")
	other := counter.Key("a")
	for b.cache.Shard(other) != b.cache.Shard("k") {
		other += "a"
	}
	b.set(t, other, 1)
	b.drainAll(t)
	report := b.verify(t, true)
	require.Equal(t, map[operate.Class]int64{operate.ClassAhead: 1, operate.ClassEqual: 1}, report.Counts)
	b.drainAll(t)
	b.requireValue(t, "k", 2)
	require.Equal(t, map[operate.Class]int64{operate.ClassEqual: 2}, b.verify(t, false).Counts)
}

// The open epochs of all shards were deleted by hand.
func TestEntriesOfADeletedEpochAreRepaired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, key := range []counter.Key{"a", "b", "c", "d", "e"} {
		b.set(t, key, 1)
	}
	for shard := range counter.Shard(b.cache.Shards()) {
		require.NoError(t, b.redis.Del(t.Context(), "{aw:"+shard.String()+"}:open").Err())
	}
	require.Equal(t, map[operate.Class]int64{operate.ClassAhead: 5}, b.verify(t, true).Counts)
	b.drainAll(t)
	require.Equal(t, map[operate.Class]int64{operate.ClassEqual: 5}, b.verify(t, false).Counts)
}

// The entry is marked as set aside, but its key is in neither set, so no retry and no redrive finds it.
func TestEntrySetAsideInNoSetIsRepaired(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"retry", "dead"} {
		b := setup(t)
		b.set(t, "k", 1)
		require.NoError(t, b.cache.SetAside(t.Context(), b.cache.Shard("k"), []counter.Key{"k"}, time.Hour))
		if name == "dead" {
			require.NoError(t, b.cache.Bury(t.Context(), "k", cache.Dead{Reason: "no", Since: time.Now(), Attempts: 1}))
		}
		b.drainAll(t) // the epoch of its write
		b.set(t, "k", 2)
		require.NoError(t, b.redis.Del(t.Context(), b.shardSet("k", name)).Err())
		b.requireAhead(t)
		b.requireValue(t, "k", 2)
	}
}

func TestEntriesThatAreSetAsideAreNotDifferences(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "waits", 1)
	b.set(t, "dead", 1)
	require.NoError(t, b.cache.SetAside(t.Context(), b.cache.Shard("waits"), []counter.Key{"waits"}, time.Hour))
	require.NoError(t, b.cache.Bury(t.Context(), "dead", cache.Dead{Reason: "no", Since: time.Now(), Attempts: 1}))
	b.drainAll(t)
	b.set(t, "waits", 2)
	b.set(t, "dead", 2)
	require.Equal(t, map[operate.Class]int64{operate.ClassDirty: 1, operate.ClassDead: 1}, b.verify(t, true).Counts)
}

func TestKeyWithoutAnEntryIsAnOrphanInAnySet(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, key := range []counter.Key{"open", "sealed", "waits", "dead"} {
		b.set(t, key, 1)
	}
	require.NoError(t, b.cache.SetAside(t.Context(), b.cache.Shard("waits"), []counter.Key{"waits"}, time.Hour))
	require.NoError(t, b.cache.Bury(t.Context(), "dead", cache.Dead{Reason: "no", Since: time.Now(), Attempts: 1}))
	for shard := range counter.Shard(b.cache.Shards()) {
		e, err := b.cache.Seal(t.Context(), shard, cache.Taking{Owner: "test", Lease: time.Minute})
		require.NoError(t, err)
		require.NoError(t, b.cache.Release(t.Context(), shard, "test"))
		require.NotEqual(t, cache.Busy, e.State)
	}
	b.set(t, "open", 2)
	for _, key := range []counter.Key{"open", "sealed", "waits", "dead"} {
		require.NoError(t, b.redis.Del(t.Context(), b.entry(key)).Err())
	}
	report := b.verify(t, true)
	require.Equal(t, map[operate.Class]int64{operate.ClassOrphan: 4}, report.Counts)
	b.drainAll(t)
	require.Equal(t, map[operate.Class]int64{operate.ClassOrphan: 2}, b.verify(t, false).Counts, "a flush drops the other two")
}
