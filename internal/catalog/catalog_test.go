package catalog_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"sync"
	"testing"
	"time"

	_ "github.com/lib/pq" // registers the driver
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// bundle is a catalog on a Redis database and a Postgres database of one test.
type bundle struct {
	*process.Servers

	catalog  *catalog.Catalog
	service  *writepath.Service
	postgres *sql.DB
}

func setup(t *testing.T) *bundle {
	t.Helper()
	url := localtest.PostgresURL(t, func(url string) error { return store.MigrateURL(context.Background(), url) })
	c, err := config.FromMap(map[string]string{
		"REDIS_URL": localtest.RedisURL(t), "DATABASE_URL": url, "AFTERWRITE_SHARDS": "4",
	})
	require.NoError(t, err)
	s, err := process.Connect(c, slog.New(slog.DiscardHandler), process.Pools{Redis: 10, Postgres: 10})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	service := writepath.Open(writepath.Parts{Cache: s.Cache, Store: s.Store, BaseTimeout: 10 * time.Second})
	t.Cleanup(service.Close)
	return &bundle{
		Servers: s, service: service, postgres: db,
		catalog: catalog.New(catalog.Options{Cache: s.Cache, Store: s.Store, Counters: service}),
	}
}

// do carries out operations, which must succeed.
func (b *bundle) do(t *testing.T, options writepath.Options, ops ...counter.Operation) {
	t.Helper()
	for _, r := range b.service.Do(t.Context(), ops, options) {
		require.NoError(t, r.Err)
	}
}

func set(key counter.Key, value int64) counter.Operation {
	return counter.Operation{Key: key, Kind: counter.Set, Amount: value}
}

func increment(key counter.Key) counter.Operation {
	return counter.Operation{Key: key, Kind: counter.Increment, Amount: 1}
}

// enableTop creates the index for Top, and enables it.
func (b *bundle) enableTop(t *testing.T) {
	t.Helper()
	_, err := store.CreateTopIndex(t.Context(), b.Config.DatabaseURL, b.Config.Schema)
	require.NoError(t, err)
	b.catalog = catalog.New(catalog.Options{Cache: b.Cache, Store: b.Store, Counters: b.service, TopEnabled: true})
}

// rows inserts n rows with the value and version 1 without entries in Redis.
func (b *bundle) rows(t *testing.T, prefix string, n int) {
	t.Helper()
	_, err := b.postgres.ExecContext(t.Context(), `INSERT INTO counters (key, value, version, updated_at)
		SELECT $1 || lpad(n::text, 8, '0'), 1, 1, now() FROM generate_series(0, $2::int - 1) AS n`, prefix, n)
	require.NoError(t, err)
}

// flush writes all dirty counters to Postgres, as a worker does.
func (b *bundle) flush(t testing.TB) {
	t.Helper()
	for shard := range counter.Shard(b.Cache.Shards()) {
		epoch, err := b.Cache.Seal(t.Context(), shard, cache.Taking{Owner: "test", Lease: time.Minute})
		require.NoError(t, err)
		keys, _, err := b.Cache.EpochKeys(t.Context(), &epoch, 0, 1_000_000)
		require.NoError(t, err)
		if len(keys) == 0 {
			continue
		}
		b.rebase(t, shard, keys)
		snapshot, err := b.Cache.Read(t.Context(), shard, keys)
		require.NoError(t, err)
		rows := make([]counter.Row, len(keys))
		for i, e := range snapshot.Entries {
			require.False(t, e.BaseUnknown)
			rows[i] = e.Row
		}
		_, err = b.Store.Upsert(t.Context(), rows)
		require.NoError(t, err)
		_, done, err := b.Cache.Commit(t.Context(), &epoch)
		require.NoError(t, err)
		require.True(t, done)
	}
}

// rebase adds the base to the entries of keys of one shard.
func (b *bundle) rebase(t testing.TB, shard counter.Shard, keys []counter.Key) {
	t.Helper()
	for {
		snapshot, err := b.Cache.Read(t.Context(), shard, keys)
		require.NoError(t, err)
		rows, err := b.Store.Read(t.Context(), keys)
		require.NoError(t, err)
		var bases []cache.Base
		for _, e := range snapshot.Entries {
			if e.BaseUnknown {
				row, found := rows[e.Key]
				bases = append(bases, cache.Base{Key: e.Key, Row: row, Found: found, Token: snapshot.Token})
			}
		}
		if len(bases) == 0 {
			return
		}
		_, err = b.Cache.Hydrate(t.Context(), bases)
		require.NoError(t, err)
	}
}

// texts returns a line for each counter of a page.
func texts(results []counter.Result) []string {
	lines := make([]string, len(results))
	for i, r := range results {
		lines[i] = fmt.Sprintf("%s %d %d %t", r.Counter.Key, r.Counter.Value, r.Counter.Version, r.Counter.Synced)
		if r.Err != nil {
			lines[i] = string(r.Counter.Key) + " " + string(counter.CodeOf(r.Err))
		}
	}
	return lines
}

func (b *bundle) list(t *testing.T, prefix string) []string {
	t.Helper()
	page, err := b.catalog.List(t.Context(), prefix, "", catalog.MaxPage)
	require.NoError(t, err)
	require.Empty(t, page.Next)
	return texts(page.Results)
}

// run changes Postgres by hand.
func (b *bundle) run(t *testing.T, statement string) {
	t.Helper()
	_, err := b.postgres.ExecContext(t.Context(), statement)
	require.NoError(t, err)
}

func TestListShowsTheStateInRedisOrElseTheRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.run(t, `INSERT INTO counters (key, value, version, deleted_at, updated_at) VALUES
		('a:cold', -5, 2, NULL, now()), ('a:warm', 7, 3, NULL, now()), ('a:read', 8, 1, NULL, now()), ('a:deleted', 9, 4, NULL, now()),
		('a:tombstone', 0, 5, now(), now()), ('a:revived', 0, 6, now(), now()), ('a:blind', 40, 7, NULL, now()),
		('a:corrupt', 1, 1, NULL, now()), ('a:list', 1, 1, NULL, now()), ('b', 1, 1, NULL, now())`)
	b.do(t, writepath.Options{}, set("a:warm", 70), counter.Operation{Key: "a:read", Kind: counter.Get},
		counter.Operation{Key: "a:deleted", Kind: counter.Delete}, increment("a:revived"), increment("a:new"))
	b.do(t, writepath.Options{Minimal: true}, increment("a:blind"), increment("a:blind"))
	name := func(key counter.Key) string { return "{aw:" + b.Cache.Shard(key).String() + "}:c:" + string(key) }
	require.NoError(t, b.Redis.Set(t.Context(), name("a:corrupt"), "hello", 0).Err())
	require.NoError(t, b.Redis.RPush(t.Context(), name("a:list"), "hello").Err())

	require.Equal(t, []string{
		"a:blind 42 9 false", "a:cold -5 2 true", "a:corrupt internal", "a:list internal", "a:read 8 1 true", "a:revived 1 7 false",
		"a:warm 70 4 false",
	}, b.list(t, "a:"))

	require.NoError(t, b.Redis.Del(t.Context(), name("a:corrupt"), name("a:list")).Err())
	b.flush(t)
	require.Equal(t, []string{
		"a:blind 42 9 true", "a:cold -5 2 true", "a:corrupt 1 1 true", "a:list 1 1 true", "a:new 1 1 true", "a:read 8 1 true",
		"a:revived 1 7 true", "a:warm 70 4 true",
	}, b.list(t, "a:"))
}

// stored is a store that calls then after it has read the rows of a page.
type stored struct {
	*store.Store

	then func()
}

func (s stored) List(ctx context.Context, prefix string, after counter.Key, limit int) ([]counter.Row, bool, error) {
	rows, more, err := s.Store.List(ctx, prefix, after, limit)
	s.then()
	return rows, more, err
}

// A write was acknowledged before the list. While the list reads its rows, the write is flushed and its entry is evicted.
func TestListReadsARowAgainIfItsEntryWasFlushedAndEvictedMeanwhile(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rows(t, "a", 2)
	b.do(t, writepath.Options{}, set("a00000000", 5), counter.Operation{Key: "a00000001", Kind: counter.Delete})
	evicted := int64(0)
	c := catalog.New(catalog.Options{Cache: b.Cache, Counters: b.service, Store: stored{b.Store, func() {
		b.flush(t)
		var err error
		evicted, err = b.Cache.EvictIdle(t.Context(), cache.Eviction{Pace: func(context.Context, int) error { return nil }, Urgent: true})
		require.NoError(t, err)
	}}})

	page, err := c.List(t.Context(), "a", "", 10)

	require.NoError(t, err)
	require.Equal(t, int64(2), evicted)
	require.Equal(t, []string{"a00000000 5 2 true"}, texts(page.Results))
}

func TestListOfColdCountersLeavesRedisAsItWas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rows(t, "cold:", 20_000)
	b.do(t, writepath.Options{}, increment("cold:00000007"))
	before, err := b.Redis.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.Len(t, b.all(t, "cold:", catalog.MaxPage), 20_000)

	after, err := b.Redis.DBSize(t.Context()).Result()
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// all lists all counters with a prefix, page by page, and requires that they are in order.
func (b *bundle) all(t *testing.T, prefix string, limit int) map[counter.Key]counter.Counter {
	t.Helper()
	found := make(map[counter.Key]counter.Counter)
	last, after := counter.Key(""), counter.Key("")
	for {
		page, err := b.catalog.List(t.Context(), prefix, after, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Results), limit)
		for _, r := range page.Results {
			require.NoError(t, r.Err)
			require.Greater(t, r.Counter.Key, last)
			last = r.Counter.Key
			found[last] = r.Counter
		}
		if page.Next == "" {
			return found
		}
		require.GreaterOrEqual(t, page.Next, last)
		after = page.Next
	}
}

// Four clients write counters of the list and new ones, and a worker flushes, while the list is read page by page.
func TestListHasNoGapsAndNoDuplicatesWhileWritesGoOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 20_000
	b.rows(t, "k:", n)
	stop := make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	acknowledged := make(map[counter.Key]int64)
	for writer := range 4 {
		group.Go(func() {
			for i := writer; ; i += 4 {
				select {
				case <-stop:
					return
				default:
				}
				key := counter.Key("k:" + fmt.Sprintf("%08d", i*7919%n))
				fresh := counter.Key("k:" + strconv.Itoa(i%5000) + "x")
				for _, r := range b.service.Do(context.Background(), []counter.Operation{increment(key), increment(fresh)}, writepath.Options{}) {
					if r.Err != nil {
						t.Errorf("increment: %v", r.Err)
						return
					}
				}
				mu.Lock()
				acknowledged[key]++
				mu.Unlock()
			}
		})
	}
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				b.flush(t)
			}
		}
	})
	defer group.Wait()
	defer close(stop)
	for range 3 {
		mu.Lock()
		before := maps.Clone(acknowledged)
		mu.Unlock()
		found := b.all(t, "k:", 500)
		for i := range n {
			key := counter.Key(fmt.Sprintf("k:%08d", i))
			require.True(t, found[key].Exists, "%s is not listed", key)
			require.GreaterOrEqual(t, found[key].Value, 1+before[key], key)
		}
	}
}

func TestListsThatCannotRunAreRejected(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rows(t, "a", 1)
	release, reading := make(chan struct{}), make(chan struct{}, 100)
	c := catalog.New(catalog.Options{Cache: b.Cache, Counters: b.service, Store: stored{b.Store, func() {
		reading <- struct{}{}
		<-release
	}}})
	results := make(chan error, 100)
	list := func(ctx context.Context) { _, err := c.List(ctx, "", "", 1); results <- err }
	for range 2 {
		go list(t.Context())
		<-reading
	}
	waiting, cancel := context.WithCancel(t.Context())
	defer cancel()
	go list(waiting)
	cancel()
	require.Equal(t, counter.CodeOverloaded, counter.CodeOf(<-results), "it waited for a slot, and its client left")
	for range 80 { // more than may wait
		go list(t.Context())
	}
	for range 80 - 64 {
		require.Equal(t, counter.CodeOverloaded, counter.CodeOf(<-results))
	}
	close(release)
	for range 2 + 64 {
		require.NoError(t, <-results)
	}
}

func TestListSaysWhichServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.rows(t, "a", 1)
	b.run(t, `ALTER TABLE counters RENAME TO moved`)
	_, err := b.catalog.List(t.Context(), "", "", 1)
	require.Equal(t, counter.CodeDatabaseUnavailable, counter.CodeOf(err))
	b.run(t, `ALTER TABLE afterwrite.moved RENAME TO counters`)
	require.NoError(t, b.Redis.Close())
	_, err = b.catalog.List(t.Context(), "", "", 1)
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(err))
}
