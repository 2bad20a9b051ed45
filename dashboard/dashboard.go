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
)

// asynqPath is where Asynqmon is.
const asynqPath = "/asynq"

// Sampler says how far Postgres is behind; *cache.Cache is one.
type Sampler interface {
	Backlog(ctx context.Context) (cache.Backlog, error)
}

// Options are what New needs. All but Write and Version are required.
type Options struct {
	Sampler Sampler
	// Redis holds Asynq's queues. It stays the caller's to close.
	Redis redis.UniversalClient
	// Write lets visitors run, archive and delete tasks in Asynqmon.
	Write   bool
	Version string // of the program, shown at the foot of each page
	Logger  *slog.Logger
}

// New returns the handler of the pages: / and what they need, and everything under /asynq. The paths /healthz, /readyz
// and /metrics are not its own; package ops adds them.
func New(options Options) (http.Handler, error) {
	monitor := asynqmon.New(asynqmon.Options{
		RootPath:     asynqPath,
		RedisConnOpt: connection{options.Redis},
		ReadOnly:     !options.Write,
	})
	policy, err := monitorPolicy(monitor)
	if err != nil {
		return nil, fmt.Errorf("read the pages of asynqmon: %w", err)
	}
	s := &shared{version: options.Version, log: options.Logger}
	overview := &overviewPage{page: newPage(s, "/", "Overview", "overview.html"), sampler: options.Sampler, write: options.Write}

	queues := withPolicy(policy, conceal(monitor, options.Logger))

	mux := http.NewServeMux()
	mux.Handle("GET /{$}", withPolicy(ownPolicy, overview))
	mux.Handle("GET /static/{file}", withPolicy(ownPolicy, http.FileServerFS(staticFiles)))
	mux.Handle(asynqPath, queues)
	mux.Handle(asynqPath+"/", queues)
	return http.NewCrossOriginProtection().Handler(mux), nil
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
