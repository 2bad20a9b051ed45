package catalog_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/worker"
)

// flushedBetween is a Store in which a flush commits just before records are read.
type flushedBetween struct {
	*store.Store

	flush func()
}

func (s flushedBetween) Operations(ctx context.Context, key counter.Key, span store.Span) ([]counter.Record, error) {
	s.flush()
	return s.Store.Operations(ctx, key, span)
}

func (s flushedBetween) Latest(ctx context.Context, key counter.Key, limit int) ([]counter.Record, error) {
	s.flush()
	return s.Store.Latest(ctx, key, limit)
}

// recording returns the parts of a process in which every counter has a history.
func recording(t *testing.T, b *bundle) (*cache.Cache, *writepath.Service, *worker.Worker) {
	t.Helper()
	everything := cache.New(b.Redis, cache.Options{
		Shards: b.Config.Shards, CleanTTL: b.Config.CleanTTL, History: func(counter.Key) bool { return true },
	})
	service := writepath.Open(writepath.Parts{Cache: everything, Store: b.Store})
	t.Cleanup(service.Close)
	return everything, service, worker.New(worker.Options{
		Config: b.Config, Redis: b.Redis, Cache: everything, Store: b.Store,
		Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
}

// A flush may move records between the reads of Redis and Postgres. None may appear twice, or be missing.
func TestHistoryHasEachOperationOnceDuringAFlush(t *testing.T) {
	t.Parallel()
	for name, minimal := range map[string]bool{"known base": false, "unknown base": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			everything, service, w := recording(t, b)
			write := func() {
				for range 2 {
					r := service.Do(t.Context(), []counter.Operation{increment("a")}, writepath.Options{Minimal: minimal})[0]
					require.NoError(t, r.Err)
				}
			}
			lists := catalog.New(catalog.Options{Cache: everything, Counters: service, Store: flushedBetween{b.Store, func() {
				_, left, err := w.DrainAll(t.Context(), "test")
				require.NoError(t, err)
				require.Zero(t, left)
			}}})
			write()
			h, err := lists.History(t.Context(), "a", store.Span{Limit: 10})
			require.NoError(t, err)
			requireVersions(t, h.Operations, 2)
			write()
			latest, err := lists.Latest(t.Context(), "a", 10)
			require.NoError(t, err)
			requireVersions(t, latest, 4)
		})
	}
}

// Postgres has two operations. The entry was removed, so the base of the further operations is unknown.
func TestHistoryOfAnUnknownBaseIsReadInParts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	everything, service, w := recording(t, b)
	write := func(n int) {
		for range n {
			r := service.Do(t.Context(), []counter.Operation{increment("a")}, writepath.Options{Minimal: true})[0]
			require.NoError(t, r.Err)
		}
	}
	write(2)
	_, _, err := w.DrainAll(t.Context(), "test")
	require.NoError(t, err)
	require.EqualValues(t, 1, b.Redis.Del(t.Context(), "{aw:"+everything.Shard("a").String()+"}:c:a").Val())
	write(3)

	lists := catalog.New(catalog.Options{Cache: everything, Store: b.Store, Counters: service})
	var all []catalog.Recorded
	for after, parts := int64(0), 0; ; parts++ {
		require.Less(t, parts, 3)
		h, err := lists.History(t.Context(), "a", store.Span{After: after, Limit: 2})
		require.NoError(t, err)
		all = append(all, h.Operations...)
		if !h.More {
			break
		}
		after = all[len(all)-1].Version
	}
	requireVersions(t, all, 5)
	require.EqualValues(t, 5, all[4].Value)
}

// requireVersions requires the versions 1 to n.
func requireVersions(t *testing.T, all []catalog.Recorded, n int) {
	t.Helper()
	require.Len(t, all, n)
	for i := range all {
		require.EqualValues(t, i+1, all[i].Version)
	}
}
