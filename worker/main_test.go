package worker_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	_ "github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
	"github.com/afterwrite/afterwrite/worker"
)

func TestMain(m *testing.M) {
	localtest.Main(m, goleak.IgnoreCurrent())
}

// testBundle is everything between an operation and its row, in one process: a write path, and a worker that run starts.
type testBundle struct {
	config    config.Config
	redis     redis.UniversalClient
	cache     *cache.Cache
	store     *store.Store
	service   *writepath.Service
	worker    *worker.Worker
	registry  *prometheus.Registry
	inspector *asynq.Inspector
	sender    *asynq.Client
	db        *sql.DB

	redisURL, postgresURL string
}

func migrate(url string) error { return store.MigrateURL(context.Background(), url) }

func setup(t *testing.T, environment map[string]string) *testBundle {
	t.Helper()
	return setupOn(t, localtest.RedisURL(t), localtest.PostgresURL(t, migrate), environment)
}

func setupOn(t *testing.T, redisURL, postgresURL string, environment map[string]string) *testBundle {
	t.Helper()
	c, err := config.FromMap(environment)
	require.NoError(t, err)
	c.RedisURL, c.DatabaseURL = redisURL, postgresURL
	logger := slog.New(slog.NewTextHandler(t.Output(), nil))
	s, err := process.Connect(c, logger, process.Pools{Redis: 40, Postgres: 10})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	b := &testBundle{
		config: c, redis: s.Redis, cache: s.Cache, store: s.Store, registry: prometheus.NewRegistry(),
		redisURL: redisURL, postgresURL: postgresURL,
	}
	b.open(t, writepath.Parts{BaseTimeout: 2 * time.Second}) // long, because the machine may be busy
	b.worker = worker.New(worker.Options{
		Config: c, Redis: b.redis, Cache: b.cache, Store: b.store, Mappings: s.Mappings, Registerer: b.registry, Logger: logger,
	})
	b.inspector = asynq.NewInspectorFromRedisClient(b.redis)
	b.sender = asynq.NewClientFromRedisClient(b.redis)
	b.db, err = sql.Open("postgres", postgresURL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.db.Close()) })
	return b
}

// open opens the write path.
func (b *testBundle) open(t *testing.T, parts writepath.Parts) {
	t.Helper()
	parts.Cache, parts.Store = b.cache, b.store
	b.service = writepath.Open(parts)
	t.Cleanup(b.service.Close)
}

// run runs the worker until the test ends, or the returned function is called.
func (b *testBundle) run(t *testing.T) (stop func()) {
	t.Helper()
	return localtest.Run(t, b.worker.Run)
}

// do carries out operations, and requires that all succeed.
func (b *testBundle) do(t *testing.T, ops ...counter.Operation) []counter.Result {
	t.Helper()
	results := b.service.Do(t.Context(), ops, writepath.Options{})
	for _, r := range results {
		require.NoError(t, r.Err)
	}
	return results
}

func (b *testBundle) send(t *testing.T, task *asynq.Task) {
	t.Helper()
	require.NoError(t, tasks.Send(t.Context(), b.sender, task))
}

func (b *testBundle) drainAll(t *testing.T) (rows, left int64) {
	t.Helper()
	rows, left, err := b.worker.DrainAll(t.Context(), "test")
	require.NoError(t, err)
	return rows, left
}

// row returns the row of key.
func (b *testBundle) row(t *testing.T, key counter.Key) (row counter.Row, found bool) {
	t.Helper()
	row.Key = key
	err := b.db.QueryRow(`SELECT value, version, deleted_at IS NOT NULL FROM counters WHERE key = $1`, string(key)).
		Scan(&row.Value, &row.Version, &row.Deleted)
	if errors.Is(err, sql.ErrNoRows) {
		return row, false
	}
	require.NoError(t, err)
	return row, true
}

func (b *testBundle) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	_, err := b.db.Exec(statement, args...)
	require.NoError(t, err)
}

// holdUpserts makes every upsert wait until release is called.
func (b *testBundle) holdUpserts(t *testing.T) (release func()) {
	t.Helper()
	lock, err := b.db.Begin()
	require.NoError(t, err)
	_, err = lock.Exec(`LOCK TABLE counters IN SHARE MODE`)
	require.NoError(t, err)
	return func() { require.NoError(t, lock.Rollback()) }
}

// eventuallyWaiting waits until an upsert waits for a lock.
func (b *testBundle) eventuallyWaiting(t *testing.T) {
	t.Helper()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		var n int
		err := b.db.QueryRow(`SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ~ '(INSERT INTO|UPDATE) "afterwrite".counters'`).Scan(&n)
		require.NoError(t, err)
		return n > 0, "no upsert waits"
	})
}

func (b *testBundle) requireRow(t *testing.T, want counter.Row) {
	t.Helper()
	row, found := b.row(t, want.Key)
	require.True(t, found, "no row for %q", want.Key)
	require.Equal(t, want, row)
}

func (b *testBundle) eventuallyRow(t *testing.T, want counter.Row) {
	t.Helper()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		row, _ := b.row(t, want.Key)
		return row == want, "the row is still " + show(row)
	})
}

// read reads key's entry as a flush does.
func (b *testBundle) read(t *testing.T, key counter.Key) cache.Entry {
	t.Helper()
	snapshot, err := b.cache.Read(t.Context(), b.cache.Shard(key), []counter.Key{key})
	require.NoError(t, err)
	return snapshot.Entries[0]
}

// upsert writes an entry to Postgres, as a flush does, without a commit of its epoch.
func (b *testBundle) upsert(t *testing.T, e cache.Entry) (ahead []counter.Row) {
	t.Helper()
	ahead, err := b.store.Upsert(t.Context(), []counter.Row{e.Row})
	require.NoError(t, err)
	return ahead
}

// seal takes a shard for a flush, and seals its open epoch.
func (b *testBundle) seal(t *testing.T, shard counter.Shard, owner string) cache.Epoch {
	t.Helper()
	epoch, err := b.cache.Seal(t.Context(), shard, cache.Taking{Owner: owner, Lease: time.Minute})
	require.NoError(t, err)
	return epoch
}

// name returns a Redis key of key's shard.
func (b *testBundle) name(key counter.Key, rest string) string {
	return "{aw:" + b.cache.Shard(key).String() + "}:" + rest
}

func (b *testBundle) backlog(t *testing.T) cache.Backlog {
	t.Helper()
	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	return backlog
}

func increment(key counter.Key, by int64) counter.Operation {
	return counter.Operation{Key: key, Kind: counter.Increment, Amount: by}
}

func set(key counter.Key, value int64) counter.Operation {
	return counter.Operation{Key: key, Kind: counter.Set, Amount: value}
}

func del(key counter.Key) counter.Operation { return counter.Operation{Key: key, Kind: counter.Delete} }

var noOptions = writepath.Options{}

func get(key counter.Key) counter.Operation { return counter.Operation{Key: key, Kind: counter.Get} }

// age moves the first write of the open epoch of key's shard into the past.
func (b *testBundle) age(t *testing.T, key counter.Key, by time.Duration) {
	t.Helper()
	ctx := context.Background()
	require.True(t, b.redis.SIsMember(ctx, b.name(key, "open"), string(key)).Val(), "%q is not in the open epoch", key)
	meta := strings.Fields(b.redis.Get(ctx, b.name(key, "meta")).Val()) // <open> <since> ...
	require.Greater(t, len(meta), 1)
	since, err := strconv.ParseInt(meta[1], 10, 64)
	require.NoError(t, err)
	meta[1] = strconv.FormatInt(since-by.Milliseconds(), 10)
	require.NoError(t, b.redis.Set(ctx, b.name(key, "meta"), strings.Join(meta, " "), 0).Err())
}
