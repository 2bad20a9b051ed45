package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/health"
)

// traceTimeout bounds the sending of the last traces, after everything else has ended.
const traceTimeout = 2 * time.Second

// Environment is what a process or a command is started with.
type Environment struct {
	Variables map[string]string
	Stderr    io.Writer // gets the log
	Version   string    // of the program
}

// Settings reads the configuration and makes the logger of the process called name. Messages of libraries go to the same log.
func (e Environment) Settings(name string) (config.Config, *slog.Logger, error) {
	c, err := config.FromMap(e.Variables)
	if err != nil {
		return config.Config{}, nil, err
	}
	log, err := NewLogger(e.Stderr, c.LogFormat, c.LogLevel, name, config.Secrets(e.Variables)...)
	if err != nil {
		return config.Config{}, nil, err
	}
	slog.SetDefault(log)
	redis.SetLogger(redisLog{log})
	for _, v := range config.Unknown(e.Variables) {
		log.Warn("this variable has no effect: no such name is known", "variable", v.Name, "nearest", v.Nearest)
	}
	return c, log, nil
}

// Plan says what a long-running process is made of.
type Plan struct {
	Name string
	// Variable is the environment variable that sets the address, which Addr returns.
	Variable string
	Addr     func(config.Config) string
	// Refuse returns why the process must not listen at an address. Nil: it may listen anywhere.
	Refuse func(c config.Config, at net.Addr) error
	// Pools bound the connections to Redis, which every process uses, and to Postgres.
	Pools func(config.Config) Pools
	// Converts says that the process converts a Redis of the previous version, instead of waiting for one that does.
	Converts bool
	// Public says that the address serves the program's users: it has a shutdown delay, and it is an error when requests are cut
	// off at the end.
	Public bool
}

// address is where the process listens.
func (p Plan) address(c config.Config) string { return c.Addr(p.Addr(c)) }

// Listen opens the process's address, if it may listen there.
func (p Plan) Listen(c config.Config) (net.Listener, error) {
	variable := p.Variable
	if c.Port != 0 {
		variable = "PORT"
	}
	listener, err := Listen(p.address(c), variable)
	if err != nil || p.Refuse == nil {
		return listener, err
	}
	if err := p.Refuse(c, listener.Addr()); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

// Process is what every long-running process has.
type Process struct {
	Plan
	Servers

	Registry *prometheus.Registry // what /metrics shows
	Counted  *prometheus.Registry // the part of Registry that asks no server; heartbeats carry it

	version string
	delay   shutdownDelay
	silence func() bool // ends the wait to log that the process stops; nil: it has not begun
}

// Start returns a process when Redis answers and is fit to be used. It waits up to 30 s for Redis to answer, and for a
// conversion as long as that takes. Close ends what it has opened.
func Start(ctx context.Context, env Environment, plan Plan) (*Process, error) {
	c, log, err := env.Settings(plan.Name)
	if err != nil {
		return nil, err
	}
	collectLess(env.Variables)
	if c.Profiles {
		if err := serveProfiles(ctx, log); err != nil {
			return nil, err
		}
	}
	p := &Process{
		Plan: plan, Servers: Servers{Config: c, Log: log}, version: env.Version,
		Registry: NewRegistry(), Counted: prometheus.NewRegistry(),
	}
	p.Registry.MustRegister(p.Counted)
	registerBuildInfo(p.Registry, p.Name, p.version)
	if err := p.open(ctx); err != nil {
		p.Close()
		return nil, err
	}
	p.silence = context.AfterFunc(ctx, func() { log.Info("stopping: finishing what is in progress") })
	return p, nil
}

// gcPercent is how much garbage may accumulate before a collection, relative to the live memory. These processes hold some
// 10 MB, so with Go's 100 % the api would collect all the time: 5 % of its processor time to save 30 MB.
const gcPercent = 400

// collectLess sets gcPercent, unless GOGC says otherwise. Where memory is scarce, GOMEMLIMIT bounds it.
func collectLess(environment map[string]string) {
	if environment["GOGC"] == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// open checks the cheap things first: a mistake in the environment must not show only after the wait for Redis.
func (p *Process) open(ctx context.Context) (err error) {
	p.tracing, err = startTracing(ctx, p.Config.OTLPEndpoint, p.Name, p.version, p.Log)
	if err != nil {
		return err
	}
	p.Log = p.tracing.logger(p.Log)
	if err = p.connect(p.Pools(p.Config)); err != nil {
		return err
	}
	listener, err := p.Listen(p.Config)
	if err != nil {
		return err
	}
	// A client must not wait on a port that is not served yet. The process listens again when it is ready.
	if err := listener.Close(); err != nil {
		return fmt.Errorf("close %s: %w", p.address(p.Config), err)
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	p.Registry.MustRegister(p.Cache.NewCollector())
	return nil
}

// Provider makes the spans of the process; nil when tracing is off.
func (p *Process) Provider() trace.TracerProvider { return p.tracing.provide() } //nolint:ireturn // a nil one is no provider

// Stopping reports that the process was told to stop, and goes on answering for its shutdown delay.
func (p *Process) Stopping() bool { return p.delay.begun.Load() }

// Health returns what the process shows of itself. Redis is required; Postgres is reported where it is used.
func (p *Process) Health() Health {
	h := Health{
		Registry: p.Registry, Logger: p.Log, Version: p.version, Stopping: p.Stopping,
		Dependencies: []Dependency{{Name: "redis", Required: true, Ping: p.Cache.Ping}},
	}
	if p.Store != nil {
		h.Dependencies = append(h.Dependencies, Dependency{Name: "postgres", Ping: p.Store.Ping})
	}
	return h
}

// Run serves handler on the process's address, sends heartbeats and runs parts, until ctx is done or one of them fails. It returns
// the first error, when all have ended. /healthz, /readyz and /metrics are served beside handler, which may be nil; the handler of
// a public process serves them itself.
func (p *Process) Run(ctx context.Context, handler http.Handler, parts ...func(context.Context) error) error {
	defer p.beat(ctx)()
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		group.Go(func() error { return part(ctx) })
	}
	group.Go(func() error { return p.serve(ctx, handler) })
	return group.Wait()
}

func (p *Process) serve(ctx context.Context, handler http.Handler) error {
	listener, err := p.Listen(p.Config)
	if err != nil {
		return err
	}
	if p.Public {
		later, stop := p.delay.after(ctx, p.Config.ShutdownDelay)
		defer stop()
		return DefaultLimits().Serve(later, listener, handler, p.Log)
	}
	err = DefaultLimits().Serve(ctx, listener, p.Health().Handler(handler), p.Log)
	if errors.Is(err, context.DeadlineExceeded) {
		p.Log.Warn("requests were cut off at shutdown", "error", err)
		return nil
	}
	return err
}

// beat sends a heartbeat to the dashboard each second, until the returned function is called.
func (p *Process) beat(ctx context.Context) (stop func()) {
	options := health.ReporterOptions{
		Redis: p.Redis, Prefix: p.Config.Prefix(), Role: p.Name, Version: p.version, Address: p.address(p.Config),
		Counted: p.Counted, Logger: p.Log,
		Settings: health.Settings{
			FlushInterval: p.Config.FlushInterval.Milliseconds(), SweepInterval: p.Config.SweepInterval.Milliseconds(),
			MaxDirty: p.Config.MaxDirty,
		},
	}
	if p.Store != nil {
		options.Postgres = p.Store
	}
	ctx, cancel := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beats.Go(func() { health.NewReporter(options).Run(ctx) })
	return func() {
		cancel()
		beats.Wait()
	}
}

// Close ends the connections, and sends the last traces for up to 2 s.
func (p *Process) Close() {
	if p.silence != nil {
		p.silence()
	}
	p.Servers.Close()
	ctx, cancel := context.WithTimeout(context.Background(), traceTimeout)
	defer cancel()
	if err := p.tracing.close(ctx); err != nil {
		p.Log.Warn("the last traces were not sent", "error", err)
	}
}
