package worker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
)

// newDrainable is a flusher of one shard, whose cache has counters k0 to k<keys-1> that are dirty.
func newDrainable(t *testing.T, keys int) (*Flusher, *store.Store) {
	t.Helper()
	c, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": "1", "AFTERWRITE_FLUSH_BATCH": "100"})
	require.NoError(t, err)
	client := localtest.Redis(t)
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	pg, err := store.Open(localtest.PostgresURL(t, migrateURL), store.Options{Logger: logger, MaxConns: 2})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pg.Close()) })
	k := cache.New(client, cache.Options{Shards: c.Shards, CleanTTL: c.CleanTTL})
	writer := k.NewWriter(func() bool { return true })
	t.Cleanup(writer.Close)
	var writes []cache.Write
	for i := range keys {
		key := counter.Key(fmt.Sprintf("k%d", i))
		writes = append(writes, cache.Write{Operation: counter.Operation{Key: key, Kind: counter.Increment, Amount: 1}, Blind: true})
	}
	for part := range slices.Chunk(writes, cache.MaxWrites) {
		for _, o := range writer.Do(t.Context(), part) {
			require.NoError(t, o.Err)
		}
	}
	w := New(Options{Config: c, Redis: client, Cache: k, Store: pg, Registerer: prometheus.NewRegistry(), Logger: logger})
	return w.handlers.flusher, pg
}

// Postgres takes longer for an epoch than a drain may, although it has too few keys to be dropped batch by batch from its beginning.
func TestEpochThatTakesLongerThanADrainIsFlushedByMore(t *testing.T) {
	t.Parallel()
	const keys = 300 // three batches of the largest
	f, pg := newDrainable(t, keys)
	f.longest = time.Nanosecond // its time is over when it has flushed a page

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
	backlog, err := f.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Zero(t, backlog.Dirty)
	rows, err := pg.Read(t.Context(), []counter.Key{"k0", "k150", "k299"})
	require.NoError(t, err)
	require.Len(t, rows, 3)
}

// The other drain has sealed its epoch before the key was written, so it will not flush it.
func TestDrainOfABusyShardIsSentAgain(t *testing.T) {
	t.Parallel()
	f, _ := newDrainable(t, 1)
	other := cache.Taking{Owner: "other", Lease: time.Minute}
	e, err := f.cache.Seal(t.Context(), 0, other)
	require.NoError(t, err)
	require.Equal(t, cache.Sealed, e.State)

	d, err := f.Drain(t.Context(), 0, "test", 0)
	require.NoError(t, err)
	require.Zero(t, d.Rows)
	require.Equal(t, busyDelay, d.Again)

	require.NoError(t, f.cache.Release(t.Context(), 0, "other"))
	d, err = f.Drain(t.Context(), 0, "test", 0)
	require.NoError(t, err)
	require.EqualValues(t, 1, d.Rows)
	require.Zero(t, d.Again)
}

// Asynq runs it up to a second too early: then it must not be the last.
func TestDrainThatComesBeforeKeysAreDueIsSentAgain(t *testing.T) {
	t.Parallel()
	f, _ := newDrainable(t, 2)
	require.NoError(t, f.cache.SetAside(t.Context(), 0, []counter.Key{"k0"}, longestDeferral))
	require.NoError(t, f.cache.SetAside(t.Context(), 0, []counter.Key{"k1"}, time.Hour))

	d, err := f.Drain(t.Context(), 0, "test", 0)

	require.NoError(t, err)
	require.Positive(t, d.Deferred)
	require.LessOrEqual(t, d.Deferred, longestDeferral)
	require.Zero(t, d.Again)

	require.NoError(t, f.cache.SetAside(t.Context(), 0, []counter.Key{"k0"}, time.Hour))
	d, err = f.Drain(t.Context(), 0, "test", 0)
	require.NoError(t, err)
	require.Zero(t, d.Deferred, "a sweep is soon enough")
}

func migrateURL(url string) error { return store.MigrateURL(context.Background(), url) }

func TestDrainsTakeTurnsUnlessOneTakesLong(t *testing.T) {
	t.Parallel()
	turns := newTurns()
	first := turns.wait(t.Context())
	require.Len(t, turns, 1)

	began := time.Now()
	second := turns.wait(t.Context())
	require.GreaterOrEqual(t, time.Since(began), patience, "the first is not done")
	second()
	require.Len(t, turns, 1, "the turn was not its own")

	next := make(chan func())
	go func() { next <- turns.wait(context.Background()) }()
	first()
	(<-next)()
	require.Empty(t, turns)

	over, cancel := context.WithCancel(t.Context())
	cancel()
	held := turns.wait(t.Context())
	turns.wait(over)()
	require.Len(t, turns, 1)
	held()
}
