package worker

import (
	"context"
	"fmt"
	"log/slog"
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

// Postgres takes longer for an epoch than a drain may, although it has too few keys to be dropped batch by batch from its beginning.
func TestEpochThatTakesLongerThanADrainIsFlushedByMore(t *testing.T) {
	t.Parallel()
	c, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": "1", "AFTERWRITE_FLUSH_BATCH": "100"})
	require.NoError(t, err)
	client := localtest.Redis(t)
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	pg, err := store.Open(localtest.PostgresURL(t, migrateURL), store.Options{Logger: logger, MaxConns: 2})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pg.Close()) })
	k := cache.New(client, cache.Options{Shards: c.Shards, CleanTTL: c.CleanTTL})
	f := New(Options{Config: c, Redis: client, Cache: k, Store: pg, Registerer: prometheus.NewRegistry(), Logger: logger}).handlers.flusher
	const keys = 300 // three batches of the largest
	writer := k.NewWriter(func() bool { return true })
	t.Cleanup(writer.Close)
	for from := 0; from < keys; from += 100 {
		writes := make([]cache.Write, 100)
		for i := range writes {
			key := counter.Key(fmt.Sprintf("k%d", from+i))
			writes[i] = cache.Write{Operation: counter.Operation{Key: key, Kind: counter.Increment, Amount: 1}, Blind: true}
		}
		for _, o := range writer.Do(t.Context(), writes) {
			require.NoError(t, o.Err)
		}
	}

	drains := 0
	for more := true; more; drains++ {
		require.Less(t, drains, keys, "it begins anew each time")
		d := drain{
			Flusher: f, shard: 0, deadline: time.Now(), // its time is over when it has flushed a page
			taking: cache.Taking{Owner: "test", Lease: drainLease},
		}
		require.NoError(t, d.rounds(t.Context()))
		if more = d.done.More; more {
			require.Equal(t, time.Millisecond, d.done.Again)
		}
	}

	require.Greater(t, drains, 2)
	backlog, err := k.Backlog(t.Context())
	require.NoError(t, err)
	require.Zero(t, backlog.Dirty)
	rows, err := pg.Read(t.Context(), []counter.Key{"k0", "k150", "k299"})
	require.NoError(t, err)
	require.Len(t, rows, 3)
}

func migrateURL(url string) error { return store.MigrateURL(context.Background(), url) }
