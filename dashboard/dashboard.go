package dashboard

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/dashboard/auth"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Options configure a Dashboard. All but Historian, Mappings, Write, Version and Explain are required.
type Options struct {
	// Cache provides the samples of the shards, and the counters' entries.
	Cache *cache.Cache
	// Redis is a client of the same Redis, for Asynq's queues, heartbeats, the history and sessions. The caller closes it.
	Redis redis.UniversalClient
	Store Store
	// Lister lists the counters.
	Lister Lister
	// Historian reads the histories of counters; nil: the pages show none.
	Historian Historian
	// Mappings are those of the Store; nil: none.
	Mappings *mapping.Mappings
	// Write lets operators run, archive and delete tasks in Asynqmon.
	Write bool
	// Access configures sign-in and roles. New sets its Public, Redis, Prefix, Pages and Logger.
	Access  auth.Options
	Version string // the program's version, in the footer of each page
	// Explain returns the title and the explanation of a problem of the api by its code; "" if it does not know the code.
	Explain func(code string) (title, promise string)
	Logger  *slog.Logger
}

// Store is the part of *store.Store that the pages need.
type Store interface {
	operate.Store
	AuditLog
	// Landing reads where a counter lands. found is false if it has no mapping.
	Landing(ctx context.Context, key counter.Key) (landing store.Landing, found bool, err error)
}

// Dashboard serves the pages of the navigation, their static files, and everything under /asynq. Package process adds /healthz, /readyz
// and /metrics.
type Dashboard struct {
	handler http.Handler
	watch   *watch
	dead    *mappedDead
	gate    *auth.Gate
	ended   chan struct{} // closed when Run ends
}

// New returns a Dashboard. Its pages show numbers once Run is called. The error is that of auth.New.
func New(options Options) (*Dashboard, error) {
	d := &Dashboard{
		watch: newWatch(health.NewMonitor(options.Cache, options.Redis, options.Logger)),
		dead:  newMappedDead(options),
		ended: make(chan struct{}),
	}
	s := &shared{version: options.Version, log: options.Logger}
	log := &audit{entries: options.Store, pages: newAuthPages(s), log: options.Logger}
	gate, err := newGate(options, log.pages)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	d.gate = gate
	d.routeWatch(mux, s, options)
	routeActions(mux, options, s, log, gate)
	if err := routeQueues(mux, options, log); err != nil {
		return nil, err
	}
	// The policy comes first, so that rejections have it too. The gate comes before the routes, so that no path bypasses it.
	d.handler = withPolicy(ownPolicy, sameOrigin(log.pages, gate.Handler(log.plainPaths(mux))))
	return d, nil
}

// Run takes a sample each second, deletes signed-out sessions that Redis still has, and counts dead letters for viewers, until ctx is
// done. Then it ends all live updates. It must be called only once.
func (d *Dashboard) Run(ctx context.Context) {
	defer close(d.ended)
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { d.gate.Run(ctx) })
	others.Go(func() { d.dead.run(ctx) })
	d.watch.run(ctx)
}

// ServeHTTP implements http.Handler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

// routeWatch adds the pages with live numbers, and the static files.
func (d *Dashboard) routeWatch(mux *http.ServeMux, s *shared, options Options) {
	overview := &overviewPage{page: newPage(s, "/", "Overview", "overview.html"), watch: d.watch}
	shards := &shardsPage{page: newPage(s, "/shards", "Shards", "shards.html"), watch: d.watch}
	requests := &requestsPage{
		page: newPage(s, requestsPath, "Requests", "requests.html"), watch: d.watch, explain: options.Explain,
	}
	mappings := &mappingsPage{
		page: newPage(s, mappingsPath, "Mappings", "mappings.html"), watch: d.watch, mappings: options.Mappings, dead: d.dead,
	}
	mux.Handle("GET /{$}", overview)
	mux.Handle("GET /shards", shards)
	mux.Handle("GET "+requestsPath, requests)
	mux.Handle("GET "+mappingsPath, mappings)
	mux.Handle("GET /live", &live{
		watch: d.watch,
		pages: map[string]livePage{"overview": overview, "shards": shards, "requests": requests, "mappings": mappings},
		slots: make(chan struct{}, maxViewers), ended: d.ended,
	})
	mux.Handle("GET /static/{file}", http.FileServerFS(staticFiles))
}

func newGate(options Options, pages auth.Pages) (*auth.Gate, error) {
	public, err := fs.Glob(staticFiles, "static/*")
	if err != nil {
		return nil, fmt.Errorf("list the static files: %w", err)
	}
	o := options.Access
	for _, name := range public {
		o.Public = append(o.Public, "/"+name)
	}
	o.Redis, o.Prefix, o.Pages, o.Logger = options.Redis, options.Cache.Prefix(), pages, options.Logger
	return auth.New(o)
}

// routeActions adds the pages on which operators act.
func routeActions(mux *http.ServeMux, options Options, s *shared, log *audit, gate *auth.Gate) {
	operator := func(f http.HandlerFunc) http.Handler { return gate.Operators(f) }
	service := operate.New(operate.Options{
		Cache: options.Cache, Store: options.Store, Redis: options.Redis, Logger: options.Logger,
	})
	dead := newDeadPage(s, log, service)
	key := &keyPage{
		page: newPage(s, keyPath, "Counters", "key.html"), audit: log, cache: options.Cache, store: options.Store,
		historian: options.Historian, operator: service,
	}
	mux.Handle("GET "+deadPath, dead)
	mux.Handle("POST "+deadPath+"/redrive", operator(dead.redrive))
	mux.Handle("POST "+deadPath+"/discard", operator(dead.discardLetters))
	mux.Handle("GET "+keyPath, &countersPage{page: newPage(s, keyPath, "Counters", "counters.html"), lister: options.Lister, one: key})
	mux.Handle("POST "+keyPath+"/flush", operator(key.flushNow))
	mux.Handle("GET "+actionsPath, &actionsPage{page: newPage(s, actionsPath, "Actions", "actions.html"), audit: log})
	mux.HandleFunc("GET "+auth.SignInPath, gate.AskPassword)
	mux.HandleFunc("POST "+auth.SignInPath, gate.SignIn)
	mux.HandleFunc("POST "+auth.SignOutPath, gate.SignOut)
}
