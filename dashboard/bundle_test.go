package dashboard_test

import (
	"context"
	"database/sql"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	_ "github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/dashboard"
	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
	"github.com/afterwrite/afterwrite/worker"
)

// testBundle is a Redis and a Postgres of the test's own, with an open dashboard. serve adds dashboards that listen.
type testBundle struct {
	config   config.Config
	url      string // database URL
	redis    redis.UniversalClient
	cache    *cache.Cache
	store    *store.Store
	mappings *mapping.Mappings // nil: none
	operator *operate.Service
	db       *sql.DB
	log      *slog.Logger
	lines    *localtest.Buffer // the log

	handler *dashboard.Dashboard
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	return setupOn(t, localtest.RedisURL(t))
}

// setupOwn is setup with a Redis server that the test may stop and configure.
func setupOwn(t *testing.T, options local.RedisOptions) (*testBundle, *local.Redis) {
	t.Helper()
	server := localtest.OwnRedis(t, options)
	return setupOn(t, server.URL()), server
}

func setupOn(t *testing.T, redisURL string) *testBundle {
	t.Helper()
	b := &testBundle{lines: new(localtest.Buffer)}
	b.log = slog.New(slog.NewTextHandler(b.lines, nil))
	b.configure(t, map[string]string{"AFTERWRITE_SHARDS": "64", "AFTERWRITE_MAX_ATTEMPTS": "2", "AFTERWRITE_RETRY_BACKOFF": "10ms"})
	var err error
	b.redis, err = cache.Connect(redisURL, 20)
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.redis.Close() }) // the test may have done so
	b.cache = cache.New(b.redis, cache.Options{Shards: 64, CleanTTL: time.Hour})
	b.url = localtest.PostgresURL(t, func(url string) error { return store.MigrateURL(context.Background(), url) })
	b.store, err = store.Open(b.url, store.Options{Logger: b.log, MaxConns: 8})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.store.Close() })
	b.operator = operate.New(operate.Options{Cache: b.cache, Store: b.store, Redis: b.redis, Logger: b.log})
	b.db, err = sql.Open("postgres", b.url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.db.Close()) })
	b.handler = b.pages(t, false, auth.Options{Address: "127.0.0.1:8081"})
	return b
}

// mappedFile has a mapping for each kind of missing rows.
const mappedFile = `
mappings:
  - {name: likes, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: likes}
  - {name: views, key: "post:{id:int}:views", table: posts, where: {id: "{id}"}, set: views, missing: insert}
  - {name: shares, key: "post:{id:int}:shares", table: posts, where: {id: "{id}"}, set: shares, missing: dead}
`

// setupMapped is setup with the mappings of mappedFile, and a table posts with the rows 1 to 9.
func setupMapped(t *testing.T) *testBundle {
	t.Helper()
	b := setup(t)
	_, err := b.db.ExecContext(t.Context(), `CREATE TABLE public.posts (id int PRIMARY KEY, likes int, views int, shares int CHECK (shares < 1000));
		INSERT INTO public.posts SELECT n, 0, 0, 0 FROM generate_series(1, 9) AS n`)
	require.NoError(t, err)
	b.mappings, err = mapping.Parse([]byte(mappedFile))
	require.NoError(t, err)
	require.NoError(t, b.store.Close())
	b.store, err = store.Open(b.url, store.Options{Logger: b.log, MaxConns: 8, Mappings: b.mappings}) // setup closes it
	require.NoError(t, err)
	b.operator = operate.New(operate.Options{Cache: b.cache, Store: b.store, Redis: b.redis, Logger: b.log})
	b.handler = b.pages(t, false, auth.Options{Address: "127.0.0.1:8081"})
	return b
}

// configure sets the configuration of the workers that work starts.
func (b *testBundle) configure(t *testing.T, variables map[string]string) {
	t.Helper()
	var err error
	b.config, err = config.FromMap(variables)
	require.NoError(t, err)
}

// pages returns a dashboard. write lets operators change things in Asynqmon.
func (b *testBundle) pages(t *testing.T, write bool, access auth.Options) *dashboard.Dashboard {
	t.Helper()
	service := writepath.Open(writepath.Parts{Cache: b.cache, Store: b.store})
	t.Cleanup(service.Close)
	pages, err := dashboard.New(dashboard.Options{
		Lister: catalog.New(catalog.Options{Cache: b.cache, Store: b.store, Counters: service, TopEnabled: true}),
		Redis:  b.redis, Cache: b.cache, Store: b.store, Mappings: b.mappings, Write: write, Access: access, Version: "v1.2.3", Logger: b.log,
	})
	require.NoError(t, err)
	return pages
}

// run takes samples until the test ends, or the returned function is called. It waits for the first.
func (b *testBundle) run(t *testing.T) (stop func()) {
	t.Helper()
	stop = localtest.Run(t, func(ctx context.Context) error {
		b.handler.Run(ctx)
		return nil
	})
	b.eventually(t, "/", func(page string) bool { return !strings.Contains(page, "Starting") })
	return stop
}

// eventually waits until ok accepts the page, and returns the page.
func (b *testBundle) eventually(t *testing.T, path string, ok func(page string) bool) string {
	t.Helper()
	var page string
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		page = b.get(t, path).Body.String()
		return ok(page), page
	})
	return page
}

func (b *testBundle) do(t *testing.T, method, path string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	request.Host = "127.0.0.1:8081"
	maps.Copy(request.Header, header)
	answer := httptest.NewRecorder()
	b.handler.ServeHTTP(answer, request)
	return answer
}

func (b *testBundle) get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	return b.do(t, http.MethodGet, path, nil)
}

// dirty makes n keys of a shard dirty since the given time.
func (b *testBundle) dirty(t *testing.T, shard string, n int, since time.Time) {
	t.Helper()
	keys := make([]string, n)
	for i := range keys {
		keys[i] = strconv.Itoa(i)
	}
	localtest.OpenEpoch(t, b.redis, shard, since, keys...)
}

// write sets a counter in Redis.
func (b *testBundle) write(t *testing.T, key counter.Key, value int64) {
	t.Helper()
	writer := b.cache.NewWriter(func() bool { return true })
	defer writer.Close()
	op := counter.Operation{Key: key, Kind: counter.Set, Amount: value}
	require.NoError(t, writer.Do(t.Context(), []cache.Write{{Operation: op, Blind: true}})[0].Err)
	snapshot, err := b.cache.Read(t.Context(), b.cache.Shard(key), []counter.Key{key})
	require.NoError(t, err)
	rows, err := b.store.Read(t.Context(), []counter.Key{key})
	require.NoError(t, err)
	row, found := rows[key]
	_, err = b.cache.Hydrate(t.Context(), []cache.Base{{Key: key, Row: row, Found: found, Token: snapshot.Token}})
	require.NoError(t, err)
}

// bury makes a counter with the value a dead letter.
func (b *testBundle) bury(t *testing.T, key counter.Key, value int64, reason string) {
	t.Helper()
	b.write(t, key, value)
	require.NoError(t, b.cache.Bury(t.Context(), key, cache.Dead{Reason: reason, Since: time.Now().Add(-time.Hour), Attempts: 8}))
}

// work runs a worker until the test ends.
func (b *testBundle) work(t *testing.T) {
	t.Helper()
	w := worker.New(worker.Options{
		Config: b.config, Redis: b.redis, Cache: b.cache, Store: b.store, Mappings: b.mappings, Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.DiscardHandler),
	})
	localtest.Run(t, w.Run)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		n, err := b.operator.Workers()
		return err == nil && n > 0, "no worker"
	})
}

// beat sends heartbeats of a process of each role, until the test ends. It waits for the first ones.
func (b *testBundle) beat(t *testing.T) {
	t.Helper()
	for _, role := range []string{health.RoleAPI, health.RoleWorker, health.RoleScheduler, health.RoleDashboard} {
		options := health.ReporterOptions{Redis: b.redis, Role: role, Counted: prometheus.NewRegistry(), Logger: b.log}
		if role == health.RoleWorker {
			options.Postgres = b.store
		}
		localtest.Run(t, func(ctx context.Context) error {
			health.NewReporter(options).Run(ctx)
			return nil
		})
	}
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		return b.redis.HLen(t.Context(), health.HeartbeatKey).Val() == 4, "not all send heartbeats"
	})
}

// sendTask enqueues one task, and returns the path of the Asynqmon call that deletes it.
func (b *testBundle) sendTask(t *testing.T) string {
	t.Helper()
	require.NoError(t, tasks.Send(t.Context(), asynq.NewClientFromRedisClient(b.redis), tasks.SweptDrain(3, 1)))
	return "/asynq/api/queues/" + tasks.QueueFlush + "/pending_tasks/drain:03:1"
}

func (b *testBundle) taskIsThere(t *testing.T) bool {
	t.Helper()
	found, err := asynq.NewInspectorFromRedisClient(b.redis).ListPendingTasks(tasks.QueueFlush)
	require.NoError(t, err)
	return len(found) == 1
}
