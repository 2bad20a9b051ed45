package worker_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/worker"
)

// setupDirty returns a bundle of one shard, with dirty counters k0 to k<keys-1>.
func setupDirty(t *testing.T, keys int) *testBundle {
	t.Helper()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1", "AFTERWRITE_FLUSH_BATCH": "100"})
	b.write(t, true, many(keys))
	return b
}

// Postgres takes longer for an epoch than a drain may, although it has too few keys to be dropped batch by batch from its beginning.
func TestEpochThatTakesLongerThanADrainIsFlushedByMore(t *testing.T) {
	t.Parallel()
	const keys = 300 // three batches of the largest
	b := setupDirty(t, keys)
	f := b.worker.Flusher(time.Nanosecond) // its time is over when it has flushed a page

	drains := 0
	for more := true; more; drains++ {
		require.Less(t, drains, keys, "it begins anew each time")
		d, err := f.Drain(t.Context(), 0, "test", 0)
		require.NoError(t, err)
		if more = d.More; more {
			require.Equal(t, time.Millisecond, d.Again)
		}
	}

	require.Greater(t, drains, 2)
	require.Zero(t, b.backlog(t).Dirty)
	rows, err := b.store.Read(t.Context(), []counter.Key{"k0", "k150", "k299"})
	require.NoError(t, err)
	require.Len(t, rows, 3)
}

// The other drain has sealed its epoch before the key was written, so it will not flush it.
func TestDrainOfABusyShardIsSentAgain(t *testing.T) {
	t.Parallel()
	b := setupDirty(t, 1)
	f := b.worker.Flusher(0)
	require.Equal(t, cache.Sealed, b.seal(t, 0, "other").State)

	d, err := f.Drain(t.Context(), 0, "test", 0)
	require.NoError(t, err)
	require.Zero(t, d.Rows)
	require.Equal(t, worker.BusyDelay, d.Again)

	require.NoError(t, b.cache.Release(t.Context(), 0, "other"))
	d, err = f.Drain(t.Context(), 0, "test", 0)
	require.NoError(t, err)
	require.EqualValues(t, 1, d.Rows)
	require.Zero(t, d.Again)
}

// Asynq runs it up to a second too early: then it must not be the last.
func TestDrainThatComesBeforeKeysAreDueIsSentAgain(t *testing.T) {
	t.Parallel()
	b := setupDirty(t, 2)
	f := b.worker.Flusher(0)
	require.NoError(t, b.cache.SetAside(t.Context(), 0, []counter.Key{"k0"}, worker.LongestDeferral))
	require.NoError(t, b.cache.SetAside(t.Context(), 0, []counter.Key{"k1"}, time.Hour))

	d, err := f.Drain(t.Context(), 0, "test", 0)

	require.NoError(t, err)
	require.Positive(t, d.Deferred)
	require.LessOrEqual(t, d.Deferred, worker.LongestDeferral)
	require.Zero(t, d.Again)

	require.NoError(t, b.cache.SetAside(t.Context(), 0, []counter.Key{"k0"}, time.Hour))
	d, err = f.Drain(t.Context(), 0, "test", 0)
	require.NoError(t, err)
	require.Zero(t, d.Deferred, "a sweep is soon enough")
}
