package dashboard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/sample"
)

// asynqPath is where Asynqmon is.
const asynqPath = "/asynq"

// Options are what New needs. All but Write and Version are required.
type Options struct {
	// Cache is what samples are taken of.
	Cache *cache.Cache
	// Redis is the same Redis: it holds Asynq's queues, the pulses of all processes and the history. It stays the caller's to
	// close.
	Redis redis.UniversalClient
	// Write lets visitors run, archive and delete tasks in Asynqmon.
	Write   bool
	Version string // of the program, shown at the foot of each page
	Logger  *slog.Logger
}

// Dashboard serves the pages: / and the others of the navigation, what they load, and everything under /asynq. The paths
// /healthz, /readyz and /metrics are not its own; package ops adds them.
type Dashboard struct {
	handler http.Handler
	watch   *watch
	ended   chan struct{} // closed when Run ends
}

// New returns a Dashboard, whose pages show nothing yet: that begins with Run.
func New(options Options) (*Dashboard, error) {
	monitor, err := newMonitor(options)
	if err != nil {
		return nil, err
	}
	d := &Dashboard{
		watch: newWatch(sample.NewSampler(options.Cache, options.Redis), options.Redis, options.Logger),
		ended: make(chan struct{}),
	}
	s := &shared{version: options.Version, log: options.Logger}
	overview := &overviewPage{page: newPage(s, "/", "Overview", "overview.html"), watch: d.watch}
	shards := &shardsPage{page: newPage(s, "/shards", "Shards", "shards.html"), watch: d.watch}
	live := &live{
		watch: d.watch, pages: map[string]livePage{"overview": overview, "shards": shards},
		seats: make(chan struct{}, maxViewers), ended: d.ended,
	}

	mux := http.NewServeMux()
	own := func(pattern string, handler http.Handler) { mux.Handle(pattern, withPolicy(ownPolicy, handler)) }
	own("GET /{$}", overview)
	own("GET /shards", shards)
	own("GET /live", live)
	own("GET /static/{file}", http.FileServerFS(staticFiles))
	mux.Handle(asynqPath, monitor)
	mux.Handle(asynqPath+"/", monitor)
	d.handler = http.NewCrossOriginProtection().Handler(mux)
	return d, nil
}

// Run takes a sample each second until ctx is done, and then ends all live updates. It is called once.
func (d *Dashboard) Run(ctx context.Context) {
	defer close(d.ended)
	d.watch.run(ctx)
}

// ServeHTTP implements http.Handler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

// newMonitor returns Asynqmon, with our navigation, under a policy of its own.
func newMonitor(options Options) (http.Handler, error) {
	monitor := asynqmon.New(asynqmon.Options{
		RootPath:     asynqPath,
		RedisConnOpt: connection{options.Redis},
		ReadOnly:     !options.Write,
	})
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

// Loopback reports whether addr (host:port) is reachable from this machine only. An address whose host is a name other
// than localhost counts as reachable from others.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

var errNoScript = errors.New("there is no script in its page")
