package operate_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
	"github.com/afterwrite/afterwrite/worker"
)

func TestMain(m *testing.M) {
	localtest.Main(m, goleak.IgnoreCurrent())
}

// testBundle has a write path, an operator's service, and a worker that run starts.
type testBundle struct {
	config    config.Config
	url       string // of the database
	redis     redis.UniversalClient
	cache     *cache.Cache
	store     *store.Store
	writes    *writepath.Service
	worker    *worker.Worker
	inspector *asynq.Inspector
	service   *operate.Service
	db        *sql.DB
}

func migrate(url string) error { return store.MigrateURL(context.Background(), url) }

// setup returns a bundle. history tells which counters have a history; by default none.
func setup(t *testing.T, history ...func(counter.Key) bool) *testBundle {
	t.Helper()
	c, err := config.FromMap(map[string]string{
		"AFTERWRITE_MAX_ATTEMPTS": "2", "AFTERWRITE_RETRY_BACKOFF": "10ms", "AFTERWRITE_SHARDS": "4",
	})
	require.NoError(t, err)
	b := &testBundle{config: c}
	b.redis, err = cache.Connect(localtest.RedisURL(t), 40)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.redis.Close()) })
	options := cache.Options{Shards: c.Shards, CleanTTL: c.CleanTTL}
	for _, recorded := range history {
		options.History = recorded
	}
	b.cache = cache.New(b.redis, options)
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	b.url = localtest.PostgresURL(t, migrate)
	b.store, err = store.Open(b.url, store.Options{Logger: logger, MaxConns: 10})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.store.Close()) })
	b.writes = writepath.Open(writepath.Parts{Cache: b.cache, Store: b.store, BaseTimeout: 10 * time.Second})
	t.Cleanup(b.writes.Close)
	b.worker = worker.New(worker.Options{
		Config: c, Redis: b.redis, Cache: b.cache, Store: b.store, Registerer: prometheus.NewRegistry(), Logger: logger,
	})
	b.inspector = asynq.NewInspectorFromRedisClient(b.redis)
	b.service = operate.New(operate.Options{Cache: b.cache, Store: b.store, Redis: b.redis, Logger: logger})
	b.db, err = sql.Open("postgres", b.url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.db.Close()) })
	return b
}

// run starts the worker, and stops it when the test ends.
func (b *testBundle) run(t *testing.T) {
	t.Helper()
	localtest.Run(t, b.worker.Run)
}

// do carries out operations, which must all succeed.
func (b *testBundle) do(t *testing.T, ops ...counter.Operation) []counter.Result {
	t.Helper()
	results := b.writes.Do(t.Context(), ops, writepath.Options{})
	for _, r := range results {
		require.NoError(t, r.Err)
	}
	return results
}

func (b *testBundle) drainAll(t *testing.T) {
	t.Helper()
	_, _, err := b.worker.DrainAll(t.Context(), "test")
	require.NoError(t, err)
}

func (b *testBundle) exec(t *testing.T, statement string, args ...any) {
	t.Helper()
	_, err := b.db.Exec(statement, args...)
	require.NoError(t, err)
}

// forbid makes Postgres refuse values of 10 or more, until allow.
func (b *testBundle) forbid(t *testing.T) {
	t.Helper()
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 10) NOT VALID`)
}

func (b *testBundle) allow(t *testing.T) {
	t.Helper()
	b.exec(t, `ALTER TABLE counters DROP CONSTRAINT small`)
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

func (b *testBundle) requireRow(t *testing.T, want counter.Row) {
	t.Helper()
	row, found := b.row(t, want.Key)
	require.True(t, found, "no row for %q", want.Key)
	require.Equal(t, want, row)
}

// die waits until the running worker has made keys dead letters and archived their retries.
func (b *testBundle) die(t *testing.T, keys ...counter.Key) {
	t.Helper()
	for _, key := range keys {
		localtest.Eventually(t, 20*time.Second, func() (bool, string) {
			_, dead, err := b.cache.DeadLetter(t.Context(), key)
			require.NoError(t, err)
			state := b.retryState(t, key)
			return dead && state == "archived", fmt.Sprintf("%s: dead %t, its retry is %s", key, dead, state)
		})
	}
}

func (b *testBundle) retryState(t *testing.T, key counter.Key) string {
	t.Helper()
	info, err := b.inspector.GetTaskInfo(tasks.QueueRetry, tasks.RetryID(key))
	if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
		return "gone"
	}
	require.NoError(t, err)
	return info.State.String()
}

// bury makes a dirty key a dead letter without a worker.
func (b *testBundle) bury(t *testing.T, key counter.Key) {
	t.Helper()
	require.NoError(t, b.cache.Bury(t.Context(), key, cache.Dead{Reason: "violates check", Since: time.Now(), Attempts: 2}))
}

func (b *testBundle) get(t *testing.T, key counter.Key) operate.DeadLetter {
	t.Helper()
	dead, err := b.service.Get(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, dead.PostgresErr)
	return dead
}

func (b *testBundle) redrive(t *testing.T, keys ...counter.Key) operate.Redriven {
	t.Helper()
	redriven, err := b.service.Redrive(t.Context(), keys)
	require.NoError(t, err)
	return redriven
}

func (b *testBundle) await(t *testing.T, keys ...counter.Key) operate.Outcome {
	t.Helper()
	outcome, err := b.service.Await(t.Context(), keys, 20*time.Second)
	require.NoError(t, err)
	return outcome
}

func (b *testBundle) requireNotDead(t *testing.T, key counter.Key) {
	t.Helper()
	_, err := b.service.Get(t.Context(), key)
	require.Equal(t, operate.NotDead, operate.ReasonOf(err))
	require.ErrorContains(t, err, string(key))
}

func increment(key counter.Key, by int64) counter.Operation {
	return counter.Operation{Key: key, Kind: counter.Increment, Amount: by}
}

func set(key counter.Key, value int64) counter.Operation {
	return counter.Operation{Key: key, Kind: counter.Set, Amount: value}
}

func get(key counter.Key) counter.Operation { return counter.Operation{Key: key, Kind: counter.Get} }
