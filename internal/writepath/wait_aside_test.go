package writepath_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// refuse flushes an epoch in which Postgres refuses key, as a worker does.
func (b *testBundle) refuse(t *testing.T, key counter.Key) {
	t.Helper()
	e := b.seal(t, b.cache.Shard(key))
	require.Positive(t, e.Keys)
	b.setAside(t, key)
	b.upsert(t, b.read(t, e))
	b.commit(t, e)
}

func TestWatermarkDoesNotEndTheWaitForASetAsideKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	result := b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})
	b.eventuallyWait(t, 1)
	b.refuse(t, "a")
	b.requireWaits(t, 1)
	b.do(t, op(counter.Set, b.inShardOf("a"), 1))
	b.flush(t)
	b.requireWaits(t, 1)

	b.retry(t, "a")

	require.True(t, receive(t, result).Counter.Synced)
}

func TestRequeuedKeyIsSyncedWithItsNewEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	result := b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})
	b.eventuallyWait(t, 1)
	b.refuse(t, "a")
	require.NoError(t, b.cache.Requeue(t.Context(), []counter.Key{"a"}))
	b.requireWaits(t, 1)
	e := b.seal(t, b.cache.Shard("a"))
	b.upsert(t, b.read(t, e))
	b.requireWaits(t, 1)

	b.commit(t, e)

	require.True(t, receive(t, result).Counter.Synced)
}

// When the check runs, the key is no longer set aside, and the watermark has passed the epoch of its write.
func TestLateCheckNoticesThatAKeyWasRequeued(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, op(counter.Set, "a", 1))
	b.refuse(t, "a")
	result := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{}) // the key does not join the epoch
	b.eventuallyWait(t, 1)
	b.do(t, op(counter.Set, b.inShardOf("a"), 1))
	e := b.seal(t, b.cache.Shard("a"))
	require.NoError(t, b.cache.Requeue(t.Context(), []counter.Key{"a"}))
	b.upsert(t, b.read(t, e))
	b.commit(t, e)
	b.requireWaits(t, 1)
	b.flush(t)
	require.True(t, receive(t, result).Counter.Synced)
}

func TestRedrivenDeadLetterIsSyncedWithItsNewEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	result := b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})
	b.eventuallyWait(t, 1)
	e := b.seal(t, b.cache.Shard("a"))
	require.NoError(t, b.cache.Bury(t.Context(), "a", cache.Dead{Reason: "no", Since: time.Now(), Attempts: 1}))
	b.commit(t, e)
	b.requireWaits(t, 1)
	keys, err := b.cache.Redrive(t.Context(), b.cache.Shard("a"), []counter.Key{"a"})
	require.NoError(t, err)
	require.Len(t, keys, 1)
	b.requireWaits(t, 1)
	b.flush(t)
	require.True(t, receive(t, result).Counter.Synced)
}

// There are no other writes to the shard, so the epoch in which the set-aside key was written is never flushed.
func TestWriteToASetAsideKeyIsSyncedByItsRetry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, op(counter.Set, "a", 1))
	b.refuse(t, "a")
	result := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{})
	b.eventuallyWait(t, 1)
	b.requireWaits(t, 1)

	b.retry(t, "a")

	require.True(t, receive(t, result).Counter.Synced)
}

func TestDeadLetterDoesNotDelayAHotKeyOfItsShard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dead := b.inShardOf("hot")
	b.do(t, op(counter.Set, dead, 1))
	require.NoError(t, b.cache.Bury(t.Context(), dead, cache.Dead{Reason: "no", Since: time.Now(), Attempts: 1}))
	for range 3 {
		result := b.waiting(t, op(counter.Increment, "hot", 1), writepath.Options{})
		b.eventuallyWait(t, 1)
		e := b.seal(t, b.cache.Shard("hot"))
		b.upsert(t, b.read(t, e))
		b.do(t, op(counter.Increment, "hot", 1)) // it is never clean
		b.commit(t, e)
		require.True(t, receive(t, result).Counter.Synced)
	}
}

// Postgres has a later state of the key than a Redis that lost its tail: the write is synced only after it was merged and flushed.
func TestReconciledKeyIsSyncedWithItsNewEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	result := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{})
	b.eventuallyWait(t, 1)
	lost := counter.Row{Key: "a", Value: 100, Version: 50, Lineage: 7}
	b.stored(t, lost)
	e := b.seal(t, b.cache.Shard("a"))
	entries := b.read(t, e)
	b.upsert(t, entries) // the guard refuses it
	done, err := b.cache.Reconcile(t.Context(), e.Shard, []cache.Conflict{{Entry: entries[0], Row: lost}})
	require.NoError(t, err)
	require.Equal(t, []cache.Reconciliation{cache.Reconciled}, done)
	b.commit(t, e)
	b.requireWaits(t, 1)

	b.flush(t)

	require.True(t, receive(t, result).Counter.Synced)
	rows, err := b.store.Read(t.Context(), []counter.Key{"a"})
	require.NoError(t, err)
	require.Equal(t, int64(101), rows["a"].Value)
}

// The second delete changes nothing, so its key does not join the open epoch, and that epoch may never be flushed.
func TestRepeatedDeleteWaitsForTheFirst(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, op(counter.Set, "a", 1), op(counter.Delete, "a", 0))
	e := b.seal(t, b.cache.Shard("a"))
	result := b.waiting(t, op(counter.Delete, "a", 0), writepath.Options{})
	b.eventuallyWait(t, 1)
	b.upsert(t, b.read(t, e))
	b.requireWaits(t, 1)
	b.commit(t, e)
	require.True(t, receive(t, result).Counter.Synced)
}

func TestReplayedOperationWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.stored(t, counter.Row{Key: "blind", Value: 40, Version: 9})
	for key, minimal := range map[counter.Key]bool{"known": false, "blind": true} {
		o := op(counter.Increment, key, 1)
		o.ID = "once"
		first := b.service.Do(t.Context(), []counter.Operation{o}, writepath.Options{Minimal: minimal})[0]
		require.NoError(t, first.Err)
		e := b.seal(t, b.cache.Shard(key)) // the replay is in a later epoch
		again := b.waiting(t, o, writepath.Options{Minimal: minimal})
		b.eventuallyWait(t, 1)
		b.upsert(t, b.read(t, e))
		b.requireWaits(t, 1)

		b.commit(t, e)

		r := receive(t, again)
		require.True(t, r.Replayed)
		require.True(t, r.Counter.Synced)
		require.True(t, receive(t, b.waiting(t, o, writepath.Options{Minimal: minimal})).Counter.Synced, "and immediately")
	}
}

func TestWaitsOfOneBatchEndTogether(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ops := []counter.Operation{
		op(counter.Increment, "a", 1), op(counter.Increment, "a", 2), op(counter.Set, "b", 1), op(counter.Delete, "never", 0),
	}
	results := make(chan []counter.Result, 1)
	go func() { results <- b.service.Do(context.Background(), ops, writepath.Options{Wait: waitLong}) }()
	b.eventuallyWait(t, 3)
	b.flush(t)
	all := <-results
	for i, r := range all[:3] {
		require.NoError(t, r.Err)
		require.True(t, r.Counter.Synced, "operation %d", i)
		require.Equal(t, r.Counter.Version, r.Counter.SyncedVersion)
	}
	require.False(t, all[3].Counter.Exists)
}
