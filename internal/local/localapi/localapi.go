// Package localapi serves a real api to the tests of its clients: the HTTP server, the write path and, if wanted, a worker, on a Redis and
// a Postgres database of the test.
//
//	func TestMain(m *testing.M) { localtest.Main(m, localapi.Leaks()...) }
//
//	func TestLikes(t *testing.T) {
//		url := localapi.Start(t, localapi.Options{})
//		...
//	}
package localapi

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
	"github.com/afterwrite/afterwrite/worker"
)

// Options are optional.
type Options struct {
	// Worker starts a worker, so that writes reach Postgres.
	Worker bool
	// Wrap returns the handler that is served, given that of the api: for faults. Nil: the api's.
	Wrap func(api http.Handler) http.Handler
	// Settings are environment variables.
	Settings map[string]string
}

// basePatience is long, so that a busy test machine does not turn the value of a cold counter into an unknown one.
const basePatience = 20 * time.Second

// Start starts an api and returns its address, such as http://127.0.0.1:34567. It stops when the test ends.
func Start(t testing.TB, o Options) string {
	t.Helper()
	settings := map[string]string{
		"REDIS_URL":         localtest.RedisURL(t),
		"DATABASE_URL":      localtest.PostgresURL(t, func(url string) error { return store.MigrateURL(context.Background(), url) }),
		"AFTERWRITE_SHARDS": "4",
	}
	maps.Copy(settings, o.Settings)
	c, err := config.FromMap(settings)
	must(t, err)
	log := slog.New(slog.DiscardHandler)
	servers, err := process.Connect(c, log, process.Pools{Redis: 20, Postgres: 10, Writes: o.Worker})
	must(t, err)
	t.Cleanup(servers.Close)

	service := writepath.Open(writepath.Parts{
		Cache: servers.Cache, Store: servers.Store, BaseTimeout: basePatience, MaxDirty: c.MaxDirty,
		Durability: writepath.DurabilityOf(c.Durability), WaitReplicas: c.WaitReplicas,
		Sender: tasks.NewSender(servers.Redis, c.Prefix()),
		Enqueuer: tasks.EnqueuerOptions{
			Shards: c.Shards, FlushBatch: c.FlushBatch, FlushInterval: c.FlushInterval, Logger: log,
			Registerer: prometheus.NewRegistry(),
		},
	})
	t.Cleanup(service.Close)
	if o.Worker {
		work := worker.New(worker.Options{
			Config: c, Redis: servers.Redis, Cache: servers.Cache, Store: servers.Store, Registerer: prometheus.NewRegistry(), Logger: log,
		})
		background(t, work.Run)
	}
	operator := operate.New(operate.Options{Cache: servers.Cache, Store: servers.Store, Redis: servers.Redis, Logger: log})
	handler := api.New(service, api.Options{
		Flusher: operator, Lister: catalog.New(catalog.Options{Cache: servers.Cache, Store: servers.Store, Counters: service}),
	})
	if o.Wrap != nil {
		handler = o.Wrap(handler)
	}
	return serve(t, handler)
}

// serve serves the handler with the limits of the real processes.
func serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	must(t, err)
	background(t, func(ctx context.Context) error {
		return process.DefaultLimits().Serve(ctx, listener, handler, slog.New(slog.DiscardHandler))
	})
	return "http://" + listener.Addr().String()
}

// background calls run in a goroutine. At the end of the test it cancels the context and waits.
func background(t testing.TB, run func(ctx context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("localapi: %v", err)
		}
	})
}

// Leaks returns what localtest.Main must ignore: a goroutine that package asynq's libraries start once for each process.
func Leaks() []goleak.Option { return []goleak.Option{goleak.IgnoreCurrent()} }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("localapi: %v", err)
	}
}
