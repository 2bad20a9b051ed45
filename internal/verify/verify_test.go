package verify_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/verify"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/worker"
)

func TestMain(m *testing.M) { localtest.Main(m, goleak.IgnoreCurrent()) }

type testBundle struct {
	redis   redis.UniversalClient
	cache   *cache.Cache
	store   *store.Store
	service *writepath.Service
	worker  *worker.Worker
	db      *sql.DB
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	c, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": "4"})
	require.NoError(t, err)
	b := &testBundle{}
	b.redis, err = cache.Connect(localtest.RedisURL(t), 40)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.redis.Close()) })
	b.cache = cache.New(b.redis, cache.Options{Shards: c.Shards, CleanTTL: c.CleanTTL})
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	url := localtest.PostgresURL(t, func(url string) error { return store.MigrateURL(context.Background(), url) })
	b.store, err = store.Open(url, store.Options{Logger: logger, MaxConns: 10})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.store.Close()) })
	b.service = writepath.Open(writepath.Parts{Cache: b.cache, Store: b.store, BaseTimeout: 10 * time.Second})
	t.Cleanup(b.service.Close)
	b.worker = worker.New(worker.Options{
		Config: c, Redis: b.redis, Cache: b.cache, Store: b.store, Registerer: prometheus.NewRegistry(), Logger: logger,
	})
	b.db, err = sql.Open("postgres", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.db.Close()) })
	return b
}

func (b *testBundle) do(t *testing.T, ops ...counter.Operation) []counter.Result {
	t.Helper()
	results := b.service.Do(t.Context(), ops, writepath.Options{})
	for _, r := range results {
		require.NoError(t, r.Err)
	}
	return results
}

func (b *testBundle) set(t *testing.T, key counter.Key, value int64) {
	t.Helper()
	b.do(t, counter.Operation{Key: key, Kind: counter.Set, Amount: value})
}

func (b *testBundle) get(t *testing.T, key counter.Key) counter.Counter {
	t.Helper()
	return b.do(t, counter.Operation{Key: key, Kind: counter.Get})[0].Counter
}

func (b *testBundle) drain(t *testing.T) {
	t.Helper()
	_, _, err := b.worker.DrainAll(t.Context(), "test")
	require.NoError(t, err)
}

func (b *testBundle) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	_, err := b.db.Exec(statement, args...)
	require.NoError(t, err)
}

func (b *testBundle) verify(t *testing.T, repair bool) verify.Report {
	t.Helper()
	report, err := verify.Run(t.Context(), verify.Options{
		Cache: b.cache, Store: b.store, Repair: repair, MaxDirty: 1_000_000, Examples: 10,
	})
	require.NoError(t, err)
	require.True(t, report.Complete)
	return report
}

func (b *testBundle) entry(key counter.Key) string {
	return "{aw:" + b.cache.Shard(key).String() + "}:c:" + string(key)
}

func TestPostgresRestoredFromAnOlderBackupGetsWhatRedisHas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, key := range []counter.Key{"same", "older", "lineage", "missing"} {
		b.set(t, key, 1)
	}
	b.drain(t)
	b.exec(t, `CREATE TABLE backup AS SELECT key, value, version, deleted_at, updated_at, lineage, base FROM counters WHERE key <> 'missing'`)
	for _, key := range []counter.Key{"older", "lineage", "missing"} {
		b.set(t, key, 2)
		b.set(t, key, 3)
	}
	b.drain(t)
	b.exec(t, `TRUNCATE counters`)
	b.exec(t, `INSERT INTO counters SELECT key, value, version, deleted_at, updated_at, lineage, base FROM backup`)
	b.exec(t, `UPDATE counters SET lineage = 99, base = 0, version = 2 WHERE key = 'lineage'`)

	want := map[verify.Class]int64{verify.Equal: 1, verify.Ahead: 2, verify.Missing: 1}
	report := b.verify(t, false)
	require.Equal(t, want, report.Counts)
	require.EqualValues(t, 3, report.Unmended)
	report = b.verify(t, true)
	require.Equal(t, want, report.Counts)
	require.Zero(t, report.Unmended)
	require.Equal(t, map[verify.Class]int64{verify.Dirty: 3, verify.Equal: 1}, b.verify(t, false).Counts)
	b.do(t, counter.Operation{Key: "older", Kind: counter.Increment, Amount: 5}) // before it is flushed

	b.drain(t)

	require.Equal(t, map[verify.Class]int64{verify.Equal: 4}, b.verify(t, false).Counts)
	rows, err := b.store.Read(t.Context(), []counter.Key{"older", "lineage", "missing"})
	require.NoError(t, err)
	require.Equal(t, int64(8), rows["older"].Value)
	require.Equal(t, int64(3), rows["lineage"].Value)
	require.Equal(t, int64(3), rows["missing"].Value)
}

func TestEntryOfARedisThatLostItsTailIsDropped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "k", 1)
	b.drain(t)
	dump := b.redis.Dump(t.Context(), b.entry("k")).Val()
	b.set(t, "k", 2)
	b.drain(t)
	require.NoError(t, b.redis.RestoreReplace(t.Context(), b.entry("k"), time.Hour, dump).Err())
	require.Equal(t, int64(1), b.get(t, "k").Value)

	report := b.verify(t, true)

	require.Equal(t, map[verify.Class]int64{verify.Behind: 1}, report.Counts)
	require.Equal(t, "2 (version 2)", report.Examples[0].Postgres.String())
	require.Equal(t, int64(2), b.get(t, "k").Value)
	require.Equal(t, map[verify.Class]int64{verify.Equal: 1}, b.verify(t, false).Counts)
}

func TestWhatSomebodyDidByHandIsReportedAndLeftAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "different", 1)
	b.set(t, "foreign", 1)
	b.drain(t)
	b.set(t, "orphan", 1)
	b.exec(t, `UPDATE counters SET value = 7 WHERE key = 'different'`)
	require.NoError(t, b.redis.Set(t.Context(), b.entry("foreign"), "x", 0).Err())
	require.NoError(t, b.redis.Del(t.Context(), b.entry("orphan")).Err())
	for range 2 {
		report := b.verify(t, true)
		require.Equal(t, map[verify.Class]int64{verify.Different: 1, verify.Foreign: 1, verify.Orphan: 1}, report.Counts)
		require.EqualValues(t, 3, report.Unmended)
	}
}

func TestRepairLeavesRoomForWrites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "k", 1)
	b.drain(t)
	b.exec(t, `TRUNCATE counters`)
	report, err := verify.Run(t.Context(), verify.Options{Cache: b.cache, Store: b.store, Repair: true, MaxDirty: 1})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Held)
	require.EqualValues(t, 1, report.Unmended)
}

func TestNothingDiffersUnderConcurrentWritesAndFlushes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := counter.Key(fmt.Sprint("k", (i*7+w)%500))
				b.service.Do(context.Background(), []counter.Operation{
					{Key: key, Kind: counter.Increment, Amount: 1},
					{Key: key + "d", Kind: []counter.Kind{counter.Set, counter.Delete}[i%2]},
				}, writepath.Options{})
			}
		})
	}
	group.Go(func() {
		for ctx.Err() == nil {
			_, _, _ = b.worker.DrainAll(context.Background(), "test")
		}
	})
	for range 10 {
		report := b.verify(t, false)
		require.Zero(t, report.Differences, "%+v", report)
	}
	cancel()
	group.Wait()
	b.drain(t)
	require.Zero(t, b.verify(t, false).Differences)
}
