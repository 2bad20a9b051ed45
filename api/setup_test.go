package api_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

func TestMain(m *testing.M) {
	localtest.Cleanup(missingAnswers)
	localtest.Main(m)
}

// patience bounds every wait of a test.
const patience = 20 * time.Second

// bundle is a server of the api.
type bundle struct {
	// Only setup sets Servers, postgres, service and catalog. They use a Redis database and a Postgres database of this test.
	*process.Servers

	addr     string
	registry *prometheus.Registry
	log      *localtest.Buffer

	postgres *sql.DB
	service  *writepath.Service
	catalog  *catalog.Catalog
}

// setup starts a server with the real write path.
func setup(t *testing.T) *bundle {
	t.Helper()
	url := localtest.PostgresURL(t, func(url string) error { return store.MigrateURL(context.Background(), url) })
	c, err := config.FromMap(map[string]string{
		"REDIS_URL": localtest.RedisURL(t), "DATABASE_URL": url, "AFTERWRITE_SHARDS": "4", "AFTERWRITE_HISTORY": "likes:*",
	})
	require.NoError(t, err)
	s, err := process.Connect(c, slog.New(slog.DiscardHandler), process.Pools{Redis: 10, Postgres: 10})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	db, err := sql.Open("postgres", url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })

	service := writepath.Open(writepath.Parts{Cache: s.Cache, Store: s.Store, BaseTimeout: patience, MaxDirty: 1_000_000})
	t.Cleanup(service.Close)
	lists := catalog.New(catalog.Options{Cache: s.Cache, Store: s.Store, Counters: service})
	b := &bundle{Servers: s, postgres: db, service: service, catalog: lists}
	b.serve(t, service, api.Options{Lister: lists, Historian: lists})
	return b
}

// serve starts a server with any Counters. It stops when the test ends.
func serve(t *testing.T, counters api.Counters, options api.Options) *bundle {
	t.Helper()
	b := new(bundle)
	b.serve(t, counters, options)
	return b
}

// serve starts a server with these Counters and options, and sends the bundle's later requests to it.
func (b *bundle) serve(t *testing.T, counters api.Counters, options api.Options) {
	t.Helper()
	b.registry, b.log = prometheus.NewRegistry(), new(localtest.Buffer)
	options.Metrics, options.Logger = b.registry, slog.New(slog.NewJSONHandler(b.log, nil))
	up := func(context.Context) error { return nil }
	options.Health = process.Health{
		Registry: b.registry, Logger: options.Logger, Version: "1.2.3",
		Dependencies: []process.Dependency{{Name: "redis", Required: true, Ping: up}, {Name: "postgres", Ping: up}},
	}.Handlers()
	b.addr = start(t, api.New(counters, options))
}

// start starts a server and returns its address. It stops the server when the test ends, and fails the test if the server does
// not shut down cleanly.
func start(t *testing.T, handler http.Handler) string {
	t.Helper()
	return startWithin(t, process.DefaultLimits(), handler)
}

// startWithin is start with other limits.
func startWithin(t *testing.T, limits process.Limits, handler http.Handler) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- limits.Serve(ctx, listener, handler, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	return listener.Addr().String()
}

// counters implements api.Counters with a function.
type counters func(ctx context.Context, ops []counter.Operation, options writepath.Options) []counter.Result

func (f counters) Do(ctx context.Context, ops []counter.Operation, options writepath.Options) []counter.Result {
	return f(ctx, ops, options)
}

// always returns Counters that give every operation the same result.
func always(r counter.Result) counters {
	return func(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		results := make([]counter.Result, len(ops))
		for i := range ops {
			results[i] = r
			results[i].Counter.Key = ops[i].Key
		}
		return results
	}
}

// value is a counter in an answer.
type value struct {
	Key     string `json:"key"`
	Value   *int64 `json:"value"`
	Version *int64 `json:"version"`
	Synced  bool   `json:"synced"`
}

// unsynced returns a known value that Postgres does not have yet.
func unsynced(key string, v, version int64) value {
	return value{Key: key, Value: &v, Version: &version}
}

// get reads a counter that must exist.
func (b *bundle) get(t *testing.T, encodedKey string) value {
	t.Helper()
	a := b.send(t, http.MethodGet, "/v1/counters/"+encodedKey, "")
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
	return a.value(t)
}

// put sets a counter, and fails the test unless the answer is 200.
func (b *bundle) put(t *testing.T, encodedKey, v string) {
	t.Helper()
	a := b.send(t, http.MethodPut, "/v1/counters/"+encodedKey, `{"value":`+v+`}`)
	require.Equal(t, http.StatusOK, a.StatusCode, a.text)
}

func (a *answer) value(t *testing.T) value {
	t.Helper()
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	var v value
	require.NoError(t, json.Unmarshal([]byte(a.text), &v))
	return v
}

// unreachable returns a client of a Redis that does not run.
func unreachable(t *testing.T) redis.UniversalClient {
	t.Helper()
	client, err := cache.Connect("redis://127.0.0.1:1/0", 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// insertRow inserts the row of a counter without an entry in Redis.
func (b *bundle) insertRow(t *testing.T, key string, v, version int64) {
	t.Helper()
	_, err := b.postgres.ExecContext(t.Context(),
		`INSERT INTO counters (key, value, version, updated_at) VALUES ($1, $2, $3, now())`, key, v, version)
	require.NoError(t, err)
}

// state returns everything that is stored: the DUMP of each Redis key, and each row of Postgres as text.
func (b *bundle) state(t *testing.T) []string {
	t.Helper()
	ctx := t.Context()
	stored := make(map[string]string)
	keys := b.Redis.Scan(ctx, 0, "*", 1000).Iterator()
	for keys.Next(ctx) {
		dump, err := b.Redis.Dump(ctx, keys.Val()).Result()
		require.NoError(t, err)
		stored["redis "+keys.Val()] = dump
	}
	require.NoError(t, keys.Err())

	rows, err := b.postgres.QueryContext(ctx, `SELECT key, counters::text FROM counters`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var key, row string
		require.NoError(t, rows.Scan(&key, &row))
		stored["postgres "+key] = row
	}
	require.NoError(t, rows.Err())

	lines := make([]string, 0, len(stored))
	for _, name := range slices.Sorted(maps.Keys(stored)) {
		lines = append(lines, fmt.Sprintf("%s: %q", name, stored[name]))
	}
	return lines
}
