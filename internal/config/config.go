// Package config reads the environment into one validated struct: everything that decides what afterwrite does. What only
// concerns the machine that it runs on is read where it is used: where redis-server and postgres are installed
// (AFTERWRITE_REDIS_SERVER and AFTERWRITE_POSTGRES_BIN, in package local), PATH, NO_COLOR, and libpq's variables for what
// DATABASE_URL leaves open (PGSSLMODE and so on, in lib/pq).
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Config is everything that can be set. Each field's bounds are in validate.
type Config struct {
	// RedisURL takes redis://, rediss://, unix://, redis-sentinel:// and redis-cluster:// (see cache.ParseURL). It may
	// hold a password.
	RedisURL string `env:"REDIS_URL"`
	// DatabaseURL is a postgres:// URL or lib/pq's key=value form. It may hold a password.
	DatabaseURL string `env:"DATABASE_URL"`

	// Port, when set, is what hosting platforms hand out: the process in the foreground listens on 0.0.0.0:PORT instead
	// of on its *Addr.
	Port int `env:"PORT"`

	APIAddr       string `env:"AFTERWRITE_API_ADDR"       envDefault:"127.0.0.1:8080"`
	DashboardAddr string `env:"AFTERWRITE_DASHBOARD_ADDR" envDefault:"127.0.0.1:8081"`
	WorkerAddr    string `env:"AFTERWRITE_WORKER_ADDR"    envDefault:"127.0.0.1:8082"`
	SchedulerAddr string `env:"AFTERWRITE_SCHEDULER_ADDR" envDefault:"127.0.0.1:8083"`

	// FlushInterval is the longest that a dirty key waits for others to share its batch.
	FlushInterval time.Duration `env:"AFTERWRITE_FLUSH_INTERVAL" envDefault:"1s"`
	// FlushBatch is the most keys in one upsert.
	FlushBatch int `env:"AFTERWRITE_FLUSH_BATCH" envDefault:"1000"`
	// SweepInterval is the time between two sweeps for dirty keys whose task was lost.
	SweepInterval time.Duration `env:"AFTERWRITE_SWEEP_INTERVAL" envDefault:"5s"`
	// MaxDirty is the number of dirty keys past which no further key may become dirty.
	MaxDirty int64 `env:"AFTERWRITE_MAX_DIRTY" envDefault:"1000000"`
	// CleanTTL is how long an entry stays in Redis after Postgres has it.
	CleanTTL time.Duration `env:"AFTERWRITE_CLEAN_TTL" envDefault:"1h"`
	// IdempotencyTTL is how long the answer to a request with an Idempotency-Key is kept.
	IdempotencyTTL time.Duration `env:"AFTERWRITE_IDEMPOTENCY_TTL" envDefault:"24h"`
	// WaitReplicas is how many replicas of Redis must have a write that asks for durability=replica.
	WaitReplicas int `env:"AFTERWRITE_WAIT_REPLICAS" envDefault:"1"`
	// Shards is the number of parts of the key space; it cannot be changed while Redis holds entries. Where it is not set, a
	// Redis that holds entries decides (see ShardsSet).
	Shards int `env:"AFTERWRITE_SHARDS" envDefault:"16"`
	// ShardsSet is true where somebody has set Shards.
	ShardsSet bool
	// MaxAttempts is how often a row that Postgres refuses is tried before it becomes a dead letter.
	MaxAttempts int `env:"AFTERWRITE_MAX_ATTEMPTS" envDefault:"8"`
	// RetryBackoff is the wait before the first of those attempts; it doubles with each, up to ten minutes.
	RetryBackoff time.Duration `env:"AFTERWRITE_RETRY_BACKOFF" envDefault:"1s"`
	// TombstoneTTL is how long a deleted row is kept so that a late flush cannot bring it back.
	TombstoneTTL time.Duration `env:"AFTERWRITE_TOMBSTONE_TTL" envDefault:"168h"`
	// ShutdownDelay is how long an api that is told to stop goes on answering, while /readyz says that it is stopping.
	ShutdownDelay time.Duration `env:"AFTERWRITE_SHUTDOWN_DELAY" envDefault:"0s"`
	// WorkerConcurrency is how many tasks one worker runs at once, and so how many connections to Postgres it uses.
	// Four drain as fast as eight where Redis and Postgres are near, and leave more of the machine to the writes.
	WorkerConcurrency int `env:"AFTERWRITE_WORKER_CONCURRENCY" envDefault:"4"`

	// AdminToken opens the API's /v1/admin to whoever sends it; empty: there is none. It is a secret.
	AdminToken string `env:"AFTERWRITE_ADMIN_TOKEN"`

	// DashboardWrite lets operators run, archive and delete tasks in Asynqmon.
	DashboardWrite bool `env:"AFTERWRITE_DASHBOARD_WRITE" envDefault:"false"`
	// DashboardUsers, and the four after it, say who may see the dashboard and who may act there. Package access reads them.
	DashboardUsers          string `env:"AFTERWRITE_DASHBOARD_USERS"`
	DashboardTrustedProxies string `env:"AFTERWRITE_DASHBOARD_TRUSTED_PROXIES"`
	DashboardUserHeader     string `env:"AFTERWRITE_DASHBOARD_USER_HEADER"`
	DashboardOperators      string `env:"AFTERWRITE_DASHBOARD_OPERATORS"`
	DashboardHosts          string `env:"AFTERWRITE_DASHBOARD_HOSTS"`

	// Profiles serves Go's profiles on a port of loopback of their own.
	Profiles bool `env:"AFTERWRITE_PPROF" envDefault:"false"`

	DataDir   string `env:"AFTERWRITE_DATA_DIR"   envDefault:".afterwrite"`
	LogLevel  string `env:"AFTERWRITE_LOG_LEVEL"  envDefault:"info"`
	LogFormat string `env:"AFTERWRITE_LOG_FORMAT" envDefault:"text"`

	// OTLPEndpoint is where traces go; empty: nowhere. What else OpenTelemetry's own variables (OTEL_...) say is read by its libraries.
	OTLPEndpoint string `env:"OTEL_EXPORTER_OTLP_ENDPOINT"`
}

// Load reads the process's environment. The error names every variable that is wrong, what it holds and what it takes.
func Load() (Config, error) {
	return parse(env.Options{})
}

// FromMap is Load from the given variables instead of the process's.
func FromMap(environment map[string]string) (Config, error) {
	return parse(env.Options{Environment: environment})
}

func parse(options env.Options) (Config, error) {
	var c Config
	options.OnSet = func(name string, _ any, isDefault bool) {
		if name == "AFTERWRITE_SHARDS" {
			c.ShardsSet = !isDefault
		}
	}
	if err := env.ParseWithOptions(&c, options); err != nil {
		return Config{}, fmt.Errorf("read the environment: %w", err)
	}
	if err := c.validate(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Addr returns where a process listens: 0.0.0.0:PORT where PORT is set, else own.
func (c Config) Addr(own string) string {
	if c.Port != 0 {
		return net.JoinHostPort("0.0.0.0", strconv.Itoa(c.Port))
	}
	return own
}

func (c Config) validate() error {
	return errors.Join(
		within("AFTERWRITE_FLUSH_INTERVAL", c.FlushInterval, time.Second, time.Hour), // Asynq's shortest is a second
		within("AFTERWRITE_FLUSH_BATCH", c.FlushBatch, 1, 10_000),
		within("AFTERWRITE_SWEEP_INTERVAL", c.SweepInterval, time.Second, time.Hour),
		within("AFTERWRITE_MAX_DIRTY", c.MaxDirty, 1, 1_000_000_000),
		within("AFTERWRITE_CLEAN_TTL", c.CleanTTL, time.Second, 365*24*time.Hour),
		within("AFTERWRITE_IDEMPOTENCY_TTL", c.IdempotencyTTL, time.Second, 30*24*time.Hour),
		within("AFTERWRITE_WAIT_REPLICAS", c.WaitReplicas, 1, 100),
		within("AFTERWRITE_SHARDS", c.Shards, 1, counter.MaxShards),
		within("AFTERWRITE_MAX_ATTEMPTS", c.MaxAttempts, 1, 100),
		within("AFTERWRITE_RETRY_BACKOFF", c.RetryBackoff, 10*time.Millisecond, 10*time.Minute),
		within("AFTERWRITE_TOMBSTONE_TTL", c.TombstoneTTL, time.Minute, 10*365*24*time.Hour),
		within("AFTERWRITE_SHUTDOWN_DELAY", c.ShutdownDelay, 0, time.Minute),
		within("AFTERWRITE_WORKER_CONCURRENCY", c.WorkerConcurrency, 1, 256),
		within("PORT", c.Port, 0, 65535),
		secret("AFTERWRITE_ADMIN_TOKEN", c.AdminToken),
		oneOf("AFTERWRITE_LOG_LEVEL", c.LogLevel, "debug", "info", "warn", "error"),
		oneOf("AFTERWRITE_LOG_FORMAT", c.LogFormat, "text", "json"),
		address("AFTERWRITE_API_ADDR", c.APIAddr),
		address("AFTERWRITE_DASHBOARD_ADDR", c.DashboardAddr),
		address("AFTERWRITE_WORKER_ADDR", c.WorkerAddr),
		address("AFTERWRITE_SCHEDULER_ADDR", c.SchedulerAddr),
	)
}

func within[T int | int64 | time.Duration](name string, value, low, high T) error {
	if value < low || value > high {
		return fmt.Errorf("%s is %v: it takes %v to %v", name, value, low, high)
	}
	return nil
}

func oneOf(name, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s is %q: it takes one of %v", name, value, allowed)
}

// minSecret is the shortest secret: 16 random letters and digits are 95 bits, and no word has as many.
const minSecret = 16

// secret checks a token without showing it: none, or one that fits in a header as it is.
func secret(name, value string) error {
	if value == "" {
		return nil
	}
	if len(value) < minSecret {
		return fmt.Errorf("%s has %d characters: it takes at least %d, like those of `openssl rand -hex 16`", name, len(value), minSecret)
	}
	for _, r := range value {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("%s has a character that is not visible ASCII: it takes letters, digits and the like, and no spaces", name)
		}
	}
	return nil
}

func address(name, value string) error {
	if _, _, err := net.SplitHostPort(value); err != nil {
		return fmt.Errorf("%s is %q: it takes host:port, like 127.0.0.1:8080", name, value)
	}
	return nil
}

// RequireRedis returns an error that says what to do when no Redis is configured.
func (c Config) RequireRedis() error {
	if c.RedisURL == "" {
		return errors.New("REDIS_URL is not set: set it (redis://127.0.0.1:6379/0), or use `afterwrite up`, which brings its own")
	}
	return nil
}

// RequirePostgres is RequireRedis for Postgres.
func (c Config) RequirePostgres() error {
	if c.DatabaseURL == "" {
		return errors.New("DATABASE_URL is not set: set it (postgres://user@127.0.0.1/afterwrite), " +
			"or use `afterwrite up`, which brings its own")
	}
	return nil
}

// Redact returns rawURL fit for logs: without its password, and without anything at all where it cannot be parsed.
func Redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme == "" {
		return "(not an URL: not shown)"
	}
	return u.Redacted()
}
