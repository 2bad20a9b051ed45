package dashboard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"

	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/access"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/sample"
)

// asynqPath is where Asynqmon is.
const asynqPath = "/asynq"

// Options are what New needs. All but Write and Version are required.
type Options struct {
	// Cache is what samples are taken of, and where counters are looked up.
	Cache *cache.Cache
	// Redis is the same Redis: it holds Asynq's queues, the pulses of all processes, the history and the sessions. It stays the
	// caller's to close.
	Redis redis.UniversalClient
	Store Store
	// Write lets operators run, archive and delete tasks in Asynqmon.
	Write bool
	// Access says who may look and who may act. Its Public, Redis, Answers and Logger are set here.
	Access  access.Options
	Version string // of the program, shown at the foot of each page
	Logger  *slog.Logger
}

// Store is the part of *store.Store that is needed.
type Store interface {
	operate.Store
	Log
}

// Dashboard serves the pages: / and the others of the navigation, what they load, and everything under /asynq. The paths
// /healthz, /readyz and /metrics are not its own; package ops adds them.
type Dashboard struct {
	handler http.Handler
	watch   *watch
	gate    *access.Gate
	ended   chan struct{} // closed when Run ends
}

// New returns a Dashboard, whose pages show nothing yet: that begins with Run. The error is access.ErrOpen when everybody
// could act.
func New(options Options) (*Dashboard, error) {
	d := &Dashboard{
		watch: newWatch(sample.NewSampler(options.Cache, options.Redis), options.Redis, options.Logger),
		ended: make(chan struct{}),
	}
	s := &shared{version: options.Version, log: options.Logger}
	deeds := &register{actions: options.Store, answers: newAnswers(s), log: options.Logger}
	gate, err := newGate(options, deeds.answers)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	d.gate = gate
	d.routeWatch(mux, s)
	routeDesk(mux, options, s, deeds, gate)
	if err := routeQueues(mux, options, deeds); err != nil {
		return nil, err
	}
	// The policy comes first, so that refusals have it, and then who it is: no path leads around that.
	d.handler = withPolicy(ownPolicy, sameOrigin(deeds.answers, gate.Handler(deeds.straight(mux))))
	return d, nil
}

// Run takes a sample each second, and ends the sessions that Redis did not hear of, until ctx is done. Then it ends all live
// updates. It is called once.
func (d *Dashboard) Run(ctx context.Context) {
	defer close(d.ended)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	sessions.Go(func() { d.gate.Run(ctx) })
	d.watch.run(ctx)
}

// ServeHTTP implements http.Handler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

// routeWatch adds the pages that say how it goes, and what they load.
func (d *Dashboard) routeWatch(mux *http.ServeMux, s *shared) {
	overview := &overviewPage{page: newPage(s, "/", "Overview", "overview.html"), watch: d.watch}
	shards := &shardsPage{page: newPage(s, "/shards", "Shards", "shards.html"), watch: d.watch}
	mux.Handle("GET /{$}", overview)
	mux.Handle("GET /shards", shards)
	mux.Handle("GET /live", &live{
		watch: d.watch, pages: map[string]livePage{"overview": overview, "shards": shards},
		seats: make(chan struct{}, maxViewers), ended: d.ended,
	})
	mux.Handle("GET /static/{file}", http.FileServerFS(staticFiles))
}

func newGate(options Options, answers access.Answers) (*access.Gate, error) {
	public, err := fs.Glob(staticFiles, "static/*")
	if err != nil {
		return nil, fmt.Errorf("list the static files: %w", err)
	}
	o := options.Access
	for _, name := range public {
		o.Public = append(o.Public, "/"+name)
	}
	o.Redis, o.Answers, o.Logger = options.Redis, answers, options.Logger
	return access.New(o)
}

// sameOrigin refuses what would change something and comes from another site's page.
func sameOrigin(answers access.Answers, next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers.Refuse(w, r, http.StatusForbidden, "This came from another site's page: nothing was changed.")
	}))
	return protection.Handler(next)
}

// routeDesk adds the pages that operators act in.
func routeDesk(mux *http.ServeMux, options Options, s *shared, deeds *register, gate *access.Gate) {
	operator := func(f http.HandlerFunc) http.Handler { return gate.Operators(f) }
	service := operate.New(operate.Options{
		Cache: options.Cache, Store: options.Store, Redis: options.Redis, Logger: options.Logger,
	})
	dead := newDeadPage(s, deeds, service)
	key := &keyPage{
		page: newPage(s, keyPath, "Counters", "key.html"), register: deeds, cache: options.Cache, rows: options.Store,
		operator: service,
	}
	mux.Handle("GET "+deadPath, dead)
	mux.Handle("POST "+deadPath+"/redrive", operator(dead.redrive))
	mux.Handle("POST "+deadPath+"/discard", operator(dead.discardLetters))
	mux.Handle("GET "+keyPath, key)
	mux.Handle("POST "+keyPath+"/flush", operator(key.flushNow))
	mux.Handle("GET "+actionsPath, &actionsPage{page: newPage(s, actionsPath, "Actions", "actions.html"), register: deeds})
	mux.HandleFunc("GET "+access.SignInPath, gate.AskPassword)
	mux.HandleFunc("POST "+access.SignInPath, gate.SignIn)
	mux.HandleFunc("POST "+access.SignOutPath, gate.SignOut)
}

// routeQueues adds Asynqmon twice: as it is for operators, if they may write, and read-only for everybody else.
func routeQueues(mux *http.ServeMux, options Options, deeds *register) error {
	readOnly, err := newMonitor(options, true)
	if err != nil {
		return err
	}
	var changing http.Handler
	if options.Write {
		if changing, err = newMonitor(options, false); err != nil {
			return err
		}
	}
	queues := deeds.calls(readOnly, changing)
	mux.Handle(asynqPath, queues)
	mux.Handle(asynqPath+"/", queues)
	return nil
}

// newMonitor returns Asynqmon, with our navigation, under a policy of its own.
func newMonitor(options Options, readOnly bool) (http.Handler, error) {
	monitor := asynqmon.New(asynqmon.Options{RootPath: asynqPath, RedisConnOpt: connection{options.Redis}, ReadOnly: readOnly})
	page, err := monitorPage(monitor)
	if err != nil {
		return nil, fmt.Errorf("read the page of asynqmon: %w", err)
	}
	policy, err := monitorPolicy(page)
	if err != nil {
		return nil, fmt.Errorf("read the page of asynqmon: %w", err)
	}
	handler, err := framed(monitor, page)
	if err != nil {
		return nil, err
	}
	return withPolicy(policy, conceal(handler, options.Logger)), nil
}

// connection hands the process's own client to Asynqmon, which would otherwise open two more and have none for
// Sentinel's and Cluster's addresses as we write them.
type connection struct{ client redis.UniversalClient }

// MakeRedisClient implements asynq.RedisConnOpt.
func (c connection) MakeRedisClient() any { return c.client }

var errNoScript = errors.New("there is no script in its page")
