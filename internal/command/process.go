package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/doctor"
	"github.com/afterwrite/afterwrite/internal/ops"
	"github.com/afterwrite/afterwrite/internal/pulse"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/tracing"
)

// closeTimeout bounds the end of what works in the background, after the process has stopped serving.
const closeTimeout = 2 * time.Second

// plan says what a long-running process is made of.
type plan struct {
	name     string
	variable string // of its address
	addr     func(config.Config) string
	// refuse returns why the process must not listen there; nil: it may anywhere.
	refuse func(net.Addr) error

	// redisConns and postgresConns bound the pools; a nil postgresConns means that the process does not use Postgres.
	redisConns    func(config.Config) int
	postgresConns func(config.Config) int
	writes        bool // rows, to Postgres

	// converts says that the process converts a Redis of the previous version, instead of waiting for one that does.
	converts bool
}

// process is what every long-running process has.
type process struct {
	plan

	config   config.Config
	log      *slog.Logger
	registry *prometheus.Registry // what /metrics shows
	counted  *prometheus.Registry // the part of it that asks no server, for the pulse
	redis    redis.UniversalClient
	cache    *cache.Cache
	sampler  *cache.Collector
	store    *store.Store // nil: not used
	tracing  *tracing.Tracing
	silence  func() bool // no line about stopping any more; nil: it has not begun
}

// boot starts a process: it returns when Redis answers and is fit to be used. Close ends what it has opened.
func boot(w *world, p plan) (*process, error) {
	c, log, err := settings(w, p.name)
	if err != nil {
		return nil, err
	}
	if c.Port != 0 {
		p.variable = "PORT"
	}
	collectLess(environMap(w.environ))
	if c.Profiles {
		if err := ops.ServeProfiles(w.ctx, log); err != nil {
			return nil, err
		}
	}
	s := &process{plan: p, config: c, log: log, registry: ops.NewRegistry(), counted: prometheus.NewRegistry()}
	s.registry.MustRegister(s.counted)
	ops.RegisterBuildInfo(s.registry, p.name, programVersion())
	if err := s.open(w.ctx); err != nil {
		s.close()
		return nil, err
	}
	s.silence = context.AfterFunc(w.ctx, func() { log.Info("stopping: what is under way is ended") })
	return s, nil
}

// gcPercent is how much garbage there may be for what lives before it is collected. What lives in these processes is some
// 10 MB, so Go's 100 % would have the api collect all the time, for 5 % of its processor, to save 30 MB.
const gcPercent = 400

// collectLess sets gcPercent, unless GOGC says otherwise. Where memory is scarce, GOMEMLIMIT bounds it.
func collectLess(environment map[string]string) {
	if environment["GOGC"] == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// settings reads the environment and makes the logger, which also takes what libraries write to the standard one.
func settings(w *world, name string) (config.Config, *slog.Logger, error) {
	environment := environMap(w.environ)
	c, err := config.FromMap(environment)
	if err != nil {
		return config.Config{}, nil, err
	}
	log, err := ops.NewLogger(w.stderr, c.LogFormat, c.LogLevel, name, config.Secrets(environment)...)
	if err != nil {
		return config.Config{}, nil, err
	}
	slog.SetDefault(log)
	redis.SetLogger(redisLog{log})
	return c, log, nil
}

// open checks the cheap things first: what is wrong with the environment must not come to light after 30 s.
func (s *process) open(ctx context.Context) error {
	if err := s.config.RequireRedis(); err != nil {
		return err
	}
	if s.postgresConns != nil {
		if err := s.config.RequirePostgres(); err != nil {
			return err
		}
	}
	listener, err := s.listen()
	if err != nil {
		return err
	}
	// Nobody is to be kept waiting on a port that is not served yet; the process listens again when it is ready.
	if err := listener.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.address(), err)
	}
	if s.redis, err = cache.Connect(s.config.RedisURL, s.redisConns(s.config)); err != nil {
		return err
	}
	if err = s.trace(ctx); err != nil {
		return err
	}
	if err = s.settle(ctx); err != nil {
		return err
	}
	s.cache = cache.New(s.redis, cache.Options{
		Shards: s.config.Shards, CleanTTL: s.config.CleanTTL, RecordTTL: s.config.IdempotencyTTL,
	})
	s.sampler = s.cache.NewCollector()
	s.registry.MustRegister(s.sampler, s.cache.NewStateCollector())
	if err = s.openStore(); err != nil {
		return err
	}
	for {
		if err := awaitRedis(ctx, s.cache, s.config.RedisURL, redisPatience, s.log); err != nil {
			return err
		}
		err := doctor.Startup(ctx, s.examination(), s.log)
		if err == nil || s.cache.Ping(ctx) == nil || ctx.Err() != nil {
			return err
		}
		s.log.Warn("redis went away while it was being examined", "error", err)
	}
}

// openStore opens Postgres, where it is used.
func (s *process) openStore() (err error) {
	if s.postgresConns == nil {
		return nil
	}
	s.store, err = store.Open(s.config.DatabaseURL, store.Options{
		Logger: s.log, MaxConns: s.postgresConns(s.config), Writes: s.writes, OpenDB: s.tracing.OpenDB(),
	})
	return err
}

// trace begins to send traces, where they are wanted, and to name them in the log.
func (s *process) trace(ctx context.Context) (err error) {
	s.tracing, err = tracing.Start(ctx, tracing.Options{
		Endpoint: s.config.OTLPEndpoint, Process: s.name, Version: programVersion(), Logger: s.log,
	})
	if err != nil {
		return err
	}
	s.log = s.tracing.Logger(s.log)
	return s.tracing.Redis(s.redis)
}

func (s *process) examination() doctor.Options {
	options := doctor.Options{Redis: s.redis, Ping: s.cache.Ping, Layout: s.cache.CheckMeta}
	if s.store != nil {
		options.Postgres = s.store
	}
	return options
}

// close ends the connections.
func (s *process) close() {
	if s.silence != nil {
		s.silence()
	}
	if s.store != nil {
		closeQuietly(s.store)
	}
	if s.redis != nil {
		closeQuietly(s.redis)
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := s.tracing.Close(ctx); err != nil {
		s.log.Warn("the last traces were not sent", "error", err)
	}
}

// closeQuietly ends connections that nothing is sent on any more, so an error has no effect.
func closeQuietly(c io.Closer) { _ = c.Close() }

func (s *process) address() string { return s.config.Addr(s.addr(s.config)) }

// checks are what /readyz runs: Redis is required, Postgres is reported where it is used.
func (s *process) checks() []ops.Check {
	checks := []ops.Check{{Name: "redis", Required: true, Probe: s.cache.Ping}}
	if s.store != nil {
		checks = append(checks, ops.Check{Name: "postgres", Probe: s.store.Ping})
	}
	return checks
}

// listen takes the process's address, if it may listen there.
func (s *process) listen() (net.Listener, error) {
	listener, err := ops.Listen(s.address(), s.variable)
	if err != nil || s.refuse == nil {
		return listener, err
	}
	if err := s.refuse(listener.Addr()); err != nil {
		closeQuietly(listener)
		return nil, err
	}
	return listener, nil
}

// serve offers next, beside /healthz, /readyz and /metrics, on the process's address until ctx is done. A nil next makes
// those all.
func (s *process) serve(ctx context.Context, next http.Handler) error {
	listener, err := s.listen()
	if err != nil {
		return err
	}
	handler := ops.Handler(ops.HandlerOptions{Registry: s.registry, Checks: s.checks(), Logger: s.log, Next: next})
	return ops.Serve(ctx, listener, handler, s.log)
}

// beat tells the dashboard about the process, once a second, until the returned function is called.
func (s *process) beat(ctx context.Context) (stop func()) {
	options := pulse.Options{
		Redis: s.redis, Role: s.name, Version: programVersion(), Address: s.address(), Counted: s.counted, Logger: s.log,
		Settings: pulse.Settings{
			FlushInterval: s.config.FlushInterval.Milliseconds(), SweepInterval: s.config.SweepInterval.Milliseconds(),
			MaxDirty: s.config.MaxDirty,
		},
	}
	if s.store != nil {
		options.Postgres = s.store
	}
	ctx, cancel := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { pulse.NewBeater(options).Run(ctx) })
	return func() {
		cancel()
		beats.Wait()
	}
}

// environMap turns the form of os.Environ into a map. Of a name that is there twice the first counts, as for getenv.
func environMap(environ []string) map[string]string {
	variables := make(map[string]string, len(environ))
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if _, known := variables[name]; !known {
			variables[name] = value
		}
	}
	return variables
}
