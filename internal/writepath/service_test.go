package writepath_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// testBundle is a write path on its own Redis and Postgres databases.
type testBundle struct {
	redis   redis.UniversalClient
	cache   *cache.Cache
	store   *store.Store
	reads   *countedReads
	hints   *notedHints
	service *writepath.Service
}

// countedReads counts the reads of Postgres and can block them.
type countedReads struct {
	*store.Loader

	calls atomic.Int64
	keys  atomic.Int64
	after func() // runs after each read, before its rows are used
}

func (r *countedReads) Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error) {
	r.calls.Add(1)
	r.keys.Add(int64(len(keys)))
	rows, err := r.Loader.Read(ctx, keys)
	if r.after != nil {
		r.after()
	}
	return rows, err
}

// notedHints records the keys that it is offered.
type notedHints struct {
	mu   sync.Mutex
	keys []counter.Key
}

func (h *notedHints) Offer(_ context.Context, key counter.Key, _ counter.Shard, _ int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys = append(h.keys, key)
}

// count returns how often key was offered.
func (h *notedHints) count(key counter.Key) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, k := range h.keys {
		if k == key {
			n++
		}
	}
	return n
}

func migrate(url string) error { return store.MigrateURL(context.Background(), url) }

func setup(t *testing.T) *testBundle {
	t.Helper()
	return setupWith(t, localtest.RedisURL(t), localtest.PostgresURL(t, migrate), waitLong) // a slow Postgres has tests of its own
}

func setupWith(t *testing.T, redisURL, postgresURL string, bound time.Duration) *testBundle {
	t.Helper()
	c := config.Config{RedisURL: redisURL, DatabaseURL: postgresURL, Shards: 4, CleanTTL: time.Hour}
	s, err := process.Connect(c, slog.New(slog.DiscardHandler), process.Pools{Redis: 40, Postgres: 10})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	loader := store.NewLoader(s.Store, bound)
	t.Cleanup(loader.Close)
	b := &testBundle{redis: s.Redis, cache: s.Cache, store: s.Store, reads: &countedReads{Loader: loader}, hints: &notedHints{}}
	b.open(t, 0)
	return b
}

// open opens the write path, with durability if replicas is not 0.
func (b *testBundle) open(t *testing.T, replicas int) {
	t.Helper()
	b.service = writepath.Open(writepath.Parts{Cache: b.cache, Bases: b.reads, Hints: b.hints, WaitReplicas: replicas})
	t.Cleanup(b.service.Close)
}

func (b *testBundle) do(t *testing.T, ops ...counter.Operation) []counter.Result {
	t.Helper()
	return b.service.Do(t.Context(), ops, writepath.Options{})
}

func (b *testBundle) stored(t *testing.T, rows ...counter.Row) {
	t.Helper()
	_, err := b.store.Upsert(t.Context(), rows)
	require.NoError(t, err)
}

func op(kind counter.Kind, key counter.Key, amount int64) counter.Operation {
	return counter.Operation{Kind: kind, Key: key, Amount: amount}
}

// knowShards writes to each shard. After a start of Redis the first script on a shard opens a new epoch, so rows read before would be read
// again.
func (b *testBundle) knowShards(t *testing.T) {
	t.Helper()
	for shard, known := counter.Shard(0), 0; known < b.cache.Shards(); shard++ {
		if key := counter.Key("shard" + strconv.Itoa(int(shard))); int(b.cache.Shard(key)) == known {
			b.do(t, op(counter.Set, key, 1))
			known++
		}
	}
	b.reads.calls.Store(0)
	b.hints.keys = nil
}

func TestColdKeyContinuesFromItsRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.knowShards(t)
	b.stored(t, counter.Row{Key: "a", Value: 41, Version: 9}, counter.Row{Key: "max", Value: math.MaxInt64, Version: 1})

	got := b.do(t, op(counter.Increment, "a", 1), op(counter.Increment, "a", 1), op(counter.Increment, "max", 1),
		op(counter.Increment, "new", 5), op(counter.Get, "never", 0))

	require.Equal(t, counter.Counter{Key: "a", Value: 42, Version: 10, Exists: true, Known: true}, got[0].Counter)
	require.Equal(t, int64(43), got[1].Counter.Value)
	require.Equal(t, counter.CodeOverflow, counter.CodeOf(got[2].Err))
	require.Equal(t, counter.Counter{Key: "new", Value: 5, Version: 1, Exists: true, Known: true}, got[3].Counter)
	require.False(t, got[4].Counter.Exists)
	require.Equal(t, []counter.Key{"a", "new"}, b.hints.keys, "each newly dirty key once")
	require.Equal(t, int64(1), b.reads.calls.Load(), "one read for all")
	b.do(t, op(counter.Increment, "a", 1), op(counter.Get, "max", 0))
	require.Equal(t, int64(1), b.reads.calls.Load(), "warm keys need no read")
}

func TestReadOfAnAbsentCounterLeavesNoEntry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 10 {
		require.NoError(t, b.do(t, op(counter.Get, counter.Key(strconv.Itoa(i)), 0))[0].Err)
	}
	keys, err := b.redis.Keys(t.Context(), "*:c:*").Result()
	require.NoError(t, err)
	require.Empty(t, keys)
}

func TestMinimalWriteDoesNotReadPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.stored(t, counter.Row{Key: "a", Value: 41, Version: 9})
	for _, r := range b.service.Do(t.Context(), []counter.Operation{
		op(counter.Increment, "a", 1), op(counter.Set, "b", 1), op(counter.Delete, "c", 0),
	}, writepath.Options{Minimal: true}) {
		require.NoError(t, r.Err)
	}
	require.Zero(t, b.reads.calls.Load())
}

func TestBlindWriteOfANewKeyCanBeRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.service.Do(t.Context(), []counter.Operation{op(counter.Increment, "new", 5)}, writepath.Options{Minimal: true})
	got := b.do(t, op(counter.Get, "new", 0))[0]
	require.NoError(t, got.Err)
	require.Equal(t, counter.Counter{Key: "new", Value: 5, Version: 1, Exists: true, Known: true}, got.Counter)
}

func TestBatchKeepsTheOrderOfAKeyAcrossItsParts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.stored(t, counter.Row{Key: "a", Value: 1000, Version: 1})
	ops := make([]counter.Operation, 0, 3*cache.MaxWrites)
	for i := range 3 * cache.MaxWrites {
		kind := counter.Increment
		if i == cache.MaxWrites+7 {
			kind = counter.Set
		}
		ops = append(ops, op(kind, "a", 1))
	}
	got := b.do(t, ops...)
	for i, r := range got {
		require.NoError(t, r.Err)
		require.Equal(t, int64(i+2), r.Counter.Version)
		want := int64(1001 + i)
		if at := i - (cache.MaxWrites + 7); at >= 0 {
			want = int64(1 + at)
		}
		require.Equal(t, want, r.Counter.Value, "operation %d", i)
	}
}

func TestConcurrentFirstWritesOfColdKeysAllCount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const keys, callers = 20, 20
	rows := make([]counter.Row, keys)
	for k := range rows {
		rows[k] = counter.Row{Key: counter.Key(fmt.Sprintf("k%d", k)), Value: 100, Version: 5}
	}
	b.stored(t, rows...)
	var group sync.WaitGroup
	var failed atomic.Int64
	for range callers {
		group.Go(func() {
			for k := range keys {
				ops := []counter.Operation{op(counter.Increment, counter.Key(fmt.Sprintf("k%d", k)), 1)}
				if r := b.service.Do(context.Background(), ops, writepath.Options{})[0]; r.Err != nil || !r.Counter.Known {
					failed.Add(1)
				}
			}
		})
	}
	group.Wait()
	require.Zero(t, failed.Load())
	for k := range keys {
		got := b.do(t, op(counter.Get, counter.Key(fmt.Sprintf("k%d", k)), 0))[0].Counter
		require.Equal(t, int64(100+callers), got.Value)
		require.Equal(t, int64(5+callers), got.Version)
	}
}

// During a read of Postgres, other callers hydrate, write, flush and evict the key.
func TestSlowReaderDoesNotRestoreAnOldState(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.stored(t, counter.Row{Key: "a", Value: 10, Version: 1})
	shard := b.cache.Shard("a")
	elsewhere := writepath.Open(writepath.Parts{Cache: b.cache, Bases: b.reads.Loader})
	t.Cleanup(elsewhere.Close)
	var once sync.Once
	b.reads.after = func() {
		once.Do(func() {
			r := elsewhere.Do(t.Context(), []counter.Operation{op(counter.Increment, "a", 5)}, writepath.Options{})[0]
			require.Equal(t, int64(15), r.Counter.Value)
			b.flush(t)
			require.NoError(t, b.redis.Del(t.Context(), "{aw:"+shard.String()+"}:c:a").Err())
		})
	}

	got := b.do(t, op(counter.Increment, "a", 1))[0]

	require.NoError(t, got.Err)
	require.Equal(t, int64(16), got.Counter.Value)
	require.Equal(t, int64(3), got.Counter.Version)
}

func TestDeadOrFrozenPostgresFailsReadsButNoWrites(t *testing.T) {
	t.Parallel()
	postgres := localtest.OwnPostgres(t, local.PostgresOptions{Fsync: true})
	require.NoError(t, migrate(postgres.URL()))
	b := setupWith(t, localtest.RedisURL(t), postgres.URL(), 100*time.Millisecond)
	b.stored(t, counter.Row{Key: "a", Value: 41, Version: 9}, counter.Row{Key: "b", Value: 1, Version: 1})
	postgres.Kill()

	for range 20 {
		got := b.do(t, op(counter.Increment, "a", 1))[0]
		require.NoError(t, got.Err)
		require.False(t, got.Counter.Known)
	}
	require.Equal(t, counter.CodeDatabaseUnavailable, counter.CodeOf(b.do(t, op(counter.Get, "b", 0))[0].Err))
	require.Equal(t, counter.CodeDatabaseUnavailable, counter.CodeOf(b.do(t, op(counter.Get, "a", 0))[0].Err))

	require.NoError(t, postgres.Start(t.Context()))
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		r := b.do(t, op(counter.Get, "a", 0))[0]
		return r.Err == nil && r.Counter.Value == 61 && r.Counter.Version == 29, fmt.Sprintf("%+v", r)
	})
}
