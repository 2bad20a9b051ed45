package process

import (
	"context"
	"crypto/tls"
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

// traceTimeout bounds the sending of the last traces at the end.
const traceTimeout = 2 * time.Second

// Environment has the inputs of a process or a command.
type Environment struct {
	Variables map[string]string
	Stderr    io.Writer // receives the log
	Version   string    // the program's version
}

// Settings reads the configuration, and makes the logger of the named process. Libraries log to it too.
func (e Environment) Settings(name string) (config.Config, *slog.Logger, error) {
	c, err := config.FromMap(e.Variables)
	if err != nil {
		return config.Config{}, nil, err
	}
	log, err := newLogger(e.Stderr, c.LogFormat, c.LogLevel, name, config.Secrets(e.Variables)...)
	if err != nil {
		return config.Config{}, nil, err
	}
	slog.SetDefault(log)
	redis.SetLogger(redisLog{log})
	for _, v := range config.Unknown(e.Variables) {
		log.Warn("unknown variable: it has no effect", "variable", v.Name, "nearest", v.Nearest)
	}
	return c, log, nil
}

// Plan describes a long-running process.
type Plan struct {
	Name string
	// Variable is the environment variable of the address, and Addr returns its value.
	Variable string
	Addr     func(config.Config) string
	// Refuse returns an error if the process must not listen at the address. Nil: every address is permitted.
	Refuse func(c config.Config, at net.Addr) error
	// Pools bounds the connections to Redis and Postgres.
	Pools func(config.Config) Pools
	// Converts makes the process convert a Redis of the previous version. Others wait for the conversion.
	Converts bool
	// UsesMappings makes the process refuse to start if Postgres answers and a mapping does not fit its tables.
	UsesMappings bool
	// Durable makes the process refuse to start if Redis does not support AFTERWRITE_DURABILITY.
	Durable bool
	// Public means that clients use the address: it has a shutdown delay, and aborted requests at the end are an error.
	Public bool
	// TLS means that the address is served with the certificate of the settings, if they have one.
	TLS bool
}

// address returns the address at which the process listens.
func (p Plan) address(c config.Config) string { return c.Addr(p.Addr(c)) }

// Listen opens the process's address, unless Refuse returns an error.
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

// Process is a running process with its servers and metrics.
type Process struct {
	Plan
	Servers

	Registry *prometheus.Registry // all metrics, for /metrics
	Counted  *prometheus.Registry // the metrics that need no call to a server, for heartbeats

	// BrokenMappings returns the errors of mapped tables that the process cannot write, for heartbeats. Set it before Run, or leave it nil.
	BrokenMappings func() map[string]string

	version string
	delay   shutdownDelay
	own     *certificate // nil: no TLS
	silence func() bool  // prevents the log line about stopping; nil before it is set up
}

// Start returns a process when Redis answers and is fit. It waits up to 30 s for Redis, and without a limit for a conversion. The caller
// closes the process.
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

// gcPercent is the garbage before a collection relative to the live memory. These processes use about 10 MB, so with Go's default of 100 %
// the api would collect constantly, and spend 5 % of its CPU time to save 30 MB.
const gcPercent = 400

// collectLess sets gcPercent, unless GOGC is set. GOMEMLIMIT can bound the memory.
func collectLess(environment map[string]string) {
	if environment["GOGC"] == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// open makes the cheap checks first, so that a wrong setting is reported before the wait for Redis.
func (p *Process) open(ctx context.Context) (err error) {
	p.tracing, err = startTracing(ctx, p.Config.OTLPEndpoint, p.Name, p.version, p.Log)
	if err != nil {
		return err
	}
	p.Log = p.tracing.logger(p.Log)
	if err = p.connect(p.Pools(p.Config)); err != nil {
		return err
	}
	if p.TLS {
		if p.own, err = loadCertificate(p.Config); err != nil {
			return err
		}
	}
	listener, err := p.Listen(p.Config)
	if err != nil {
		return err
	}
	// The process listens again when it is ready, so that clients do not wait on a port that is not served yet.
	if err := listener.Close(); err != nil {
		return fmt.Errorf("close %s: %w", p.address(p.Config), err)
	}
	if err := p.settle(ctx); err != nil {
		return err
	}
	p.Registry.MustRegister(p.Cache.NewCollector())
	return nil
}

// Provider returns the tracer provider of the process, or nil if tracing is off.
func (p *Process) Provider() trace.TracerProvider { return p.tracing.provide() } //nolint:ireturn // nil means no provider

// Version returns the program's version.
func (p *Process) Version() string { return p.version }

// Stopping reports whether the process is in its shutdown delay: it was told to stop, but still answers.
func (p *Process) Stopping() bool { return p.delay.begun.Load() }

// Health returns the Health of the process. Redis is required. Postgres is reported if it is used.
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

// Run serves handler on the process's address, sends heartbeats and runs parts, until ctx is done or one of them fails. Then it returns the
// first error. Run adds /healthz, /readyz and /metrics to handler, which may be nil; the handler of a public process serves them itself.
func (p *Process) Run(ctx context.Context, handler http.Handler, parts ...func(context.Context) error) error {
	defer p.beat(ctx)()
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range parts {
		group.Go(func() error { return part(ctx) })
	}
	if p.own != nil {
		group.Go(func() error {
			p.own.watch(ctx, p.Log)
			return nil
		})
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
		return DefaultLimits().ServeTLS(later, listener, p.own.config(), handler, p.Log)
	}
	err = DefaultLimits().ServeTLS(ctx, listener, p.own.config(), p.Health().Handler(handler), p.Log)
	if errors.Is(err, context.DeadlineExceeded) {
		p.Log.Warn("requests were aborted at shutdown", "error", err)
		return nil
	}
	return err
}

// Second is a further address of a public process, with another protocol.
type Second struct {
	Addr     string
	Variable string // the environment variable of the address
	// Refuse returns an error if the process must not listen at the address.
	Refuse func(c config.Config, at net.Addr) error
	// Serve serves the listener until ctx is done, with TLS unless encryption is nil. It closes the listener.
	Serve func(ctx context.Context, listener net.Listener, encryption *tls.Config) error
}

// Part returns the part of Run that serves a second address. It has the certificate and the shutdown delay of the first.
func (p *Process) Part(second Second) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		listener, err := Listen(second.Addr, second.Variable)
		if err != nil {
			return err
		}
		if err := second.Refuse(p.Config, listener.Addr()); err != nil {
			_ = listener.Close()
			return err
		}
		later, stop := p.delay.after(ctx, p.Config.ShutdownDelay)
		defer stop()
		return second.Serve(later, listener, p.own.config())
	}
}

// beat sends heartbeats until the returned function is called.
func (p *Process) beat(ctx context.Context) (stop func()) {
	options := health.ReporterOptions{
		Redis: p.Redis, Prefix: p.Config.Prefix(), Role: p.Name, Version: p.version, Address: p.address(p.Config),
		Counted: p.Counted, Logger: p.Log,
		Settings: health.Settings{
			FlushInterval: p.Config.FlushInterval.Milliseconds(), SweepInterval: p.Config.SweepInterval.Milliseconds(),
			MaxDirty: p.Config.MaxDirty, Mappings: p.Mappings.Digest(), History: historyDigest(p.Config),
		},
		BrokenMappings: p.BrokenMappings,
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

// Close closes the connections, and sends the last traces for up to 2 s.
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
