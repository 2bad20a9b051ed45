package command

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// write makes counters dirty.
func (b *deadBundle) write(t *testing.T, keys ...counter.Key) {
	t.Helper()
	w := b.Cache.NewWriter(func() bool { return true })
	defer w.Close()
	for _, key := range keys {
		o := w.Do(t.Context(), []cache.Write{{Operation: counter.Operation{Key: key, Kind: counter.Set, Amount: 7}, Blind: true}})[0]
		require.NoError(t, o.Err)
	}
}

// setAside has a dirty counter wait for another try.
func (b *deadBundle) setAside(t *testing.T, key counter.Key) {
	t.Helper()
	require.NoError(t, b.Cache.SetAside(t.Context(), b.Cache.Shard(key), []counter.Key{key}, time.Hour))
}

func (b *deadBundle) requireRows(t *testing.T, keys ...counter.Key) {
	t.Helper()
	rows, err := b.Store.Read(t.Context(), keys)
	require.NoError(t, err)
	require.Len(t, rows, len(keys))
}

func TestWorkerDrainEndsWhenNothingIsDirty(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.bury(t, "dead") // is not waited for
	b.write(t, "a", "b", "c")

	b.succeeds(t, "worker", "--drain", "--timeout", "50s")

	b.requireRows(t, "a", "b", "c")
	b.succeeds(t, "worker", "--drain")
}

func TestWorkerDrainFailsWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.write(t, "a")
	b.setAside(t, "a")
	require.Contains(t, b.fails(t, "worker", "--drain", "--timeout", "1s"), "not drained after 1s: 1 counters are still dirty")
	require.Equal(t, exitUsage, runHere(t.Context(), "worker", "--timeout", "1s").status)
}

func TestFlushWaitsUntilPostgresHasEverything(t *testing.T) {
	t.Parallel()
	b := setupDead(t)
	b.env = append(b.env, "AFTERWRITE_FLUSH_INTERVAL=1h")
	b.bury(t, "dead")
	b.write(t, "a", "b")
	require.Contains(t, b.succeeds(t, "flush"), "dirty: 2, 0 of them waiting for a retry", "without --wait it only asks")
	require.Contains(t, b.fails(t, "flush", "--wait", "--timeout", "200ms", "a"), "not in postgres after 200ms: 1: is a worker running")

	w := start(t, b.env, "worker")
	text := b.succeeds(t, "flush", "--wait")

	b.requireRows(t, "a", "b")
	require.Contains(t, text, "dead letters: 1")
	require.Contains(t, text, "dirty: 0")
	b.write(t, "c", "aside")
	b.setAside(t, "aside")
	b.succeeds(t, "flush", "--wait", "c", "a")
	b.requireRows(t, "c")
	require.Contains(t, b.fails(t, "flush", "--wait", "--timeout", "1s"), "not in postgres after 1s: 1")
	b.succeeds(t, "flush", "--wait", "aside") // who names it may have mended what kept it
	b.requireRows(t, "aside")
	w.stop(t)
}
