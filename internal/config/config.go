// Package config reads the environment into one validated struct: everything that decides what afterwrite does. What only
// concerns the machine is read where it is used: where redis-server and postgres are installed (AFTERWRITE_REDIS_SERVER and
// AFTERWRITE_POSTGRES_BIN, in package local), PATH, NO_COLOR, and libpq's variables for what DATABASE_URL leaves open
// (PGSSLMODE and so on, in lib/pq).
//
// The tags of a field are the only place that describes its variable. From them come the checks, the errors, the help of each
// command and docs/configuration.md:
//
//	env         the variable
//	envDefault  its default
//	help        what it means
//	takes       its bounds; those of the forms "1s to 1h", "text|json" and "host:port" are checked here
//	like        an example, where the default is none or a bad one
//	since       the first version that reads it; none: it has always been there
package config

//go:generate go test -run ^TestDocumentIsUpToDate$ -write .

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/caarlos0/env/v11"
)

// Config is everything that can be set.
type Config struct {
	RedisURL    string `env:"REDIS_URL" like:"redis://127.0.0.1:6379/0" help:"where Redis is: redis://user:password@host:port/db, rediss:// with TLS, unix:///path?db=0, redis-sentinel://h1:p,h2:p/db?master=name or redis-cluster://h1:p,h2:p; rediss-sentinel:// and rediss-cluster:// with TLS"`
	DatabaseURL string `env:"DATABASE_URL" like:"postgres://user@127.0.0.1/afterwrite" help:"where Postgres is: postgres://user:password@host:port/database, or key=value pairs as libpq takes them"`
	Port        int    `env:"PORT" takes:"0 to 65535" like:"8080" help:"listen on 0.0.0.0 and this port instead of on the address below, as hosting platforms ask"`

	APIAddr       string `env:"AFTERWRITE_API_ADDR" envDefault:"127.0.0.1:8080" takes:"host:port" help:"where the api listens"`
	DashboardAddr string `env:"AFTERWRITE_DASHBOARD_ADDR" envDefault:"127.0.0.1:8081" takes:"host:port" help:"where the dashboard listens; an address that others can reach needs users, or a proxy that names them"`
	WorkerAddr    string `env:"AFTERWRITE_WORKER_ADDR" envDefault:"127.0.0.1:8082" takes:"host:port" help:"where the worker serves /healthz, /readyz and /metrics"`
	SchedulerAddr string `env:"AFTERWRITE_SCHEDULER_ADDR" envDefault:"127.0.0.1:8083" takes:"host:port" help:"where the scheduler serves /healthz, /readyz and /metrics"`

	Schema    string `env:"AFTERWRITE_SCHEMA" envDefault:"afterwrite" takes:"a name of a-z, 0-9 and _" since:"0.2" help:"the schema of Postgres that holds the tables; migrate creates it; set it alike for all processes"`
	Namespace string `env:"AFTERWRITE_NAMESPACE" takes:"1 to 32 of a-z, 0-9 and -" like:"shop" since:"0.2" help:"begins the names of all keys and queues in Redis, so that several installations can share one; set it alike for all processes, and before the first write"`
	// Asynq closes a group after a second at the earliest.
	FlushInterval  time.Duration `env:"AFTERWRITE_FLUSH_INTERVAL" envDefault:"1s" takes:"1s to 1h" help:"the longest that a dirty key waits for others to share its batch"`
	FlushBatch     int           `env:"AFTERWRITE_FLUSH_BATCH" envDefault:"1000" takes:"1 to 10000" help:"the most rows in one statement"`
	SweepInterval  time.Duration `env:"AFTERWRITE_SWEEP_INTERVAL" envDefault:"5s" takes:"1s to 1h" help:"the time between two sweeps for dirty keys whose task was lost"`
	MaxDirty       int64         `env:"AFTERWRITE_MAX_DIRTY" envDefault:"1000000" takes:"1 to 1000000000" help:"the number of dirty keys past which writes to clean keys get 503 backpressure"`
	CleanTTL       time.Duration `env:"AFTERWRITE_CLEAN_TTL" envDefault:"1h" takes:"1s to 8760h" help:"how long an entry stays in Redis after its last write, once Postgres has it"`
	IdempotencyTTL time.Duration `env:"AFTERWRITE_IDEMPOTENCY_TTL" envDefault:"24h" takes:"1s to 720h" help:"how long the answer to a request with an Idempotency-Key is kept"`
	WaitReplicas   int           `env:"AFTERWRITE_WAIT_REPLICAS" envDefault:"1" takes:"1 to 100" help:"the number of replicas of Redis that must have a write that asks for durability=replica"`
	Shards         int           `env:"AFTERWRITE_SHARDS" envDefault:"16" takes:"1 to 4096" help:"the number of parts of the key space; it cannot be changed while Redis holds entries; where it is not set, processes take the number that Redis has"`
	// ShardsSet is true where AFTERWRITE_SHARDS is set: else a Redis that holds entries decides.
	ShardsSet     bool
	MaxAttempts   int           `env:"AFTERWRITE_MAX_ATTEMPTS" envDefault:"8" takes:"1 to 100" help:"the number of attempts at a row that Postgres refuses before it becomes a dead letter"`
	RetryBackoff  time.Duration `env:"AFTERWRITE_RETRY_BACKOFF" envDefault:"1s" takes:"10ms to 10m" help:"the wait before the second of these attempts; it doubles with each, up to 10 minutes"`
	TombstoneTTL  time.Duration `env:"AFTERWRITE_TOMBSTONE_TTL" envDefault:"168h" takes:"1m to 87600h" help:"how long a deleted row is kept, so that a late flush cannot bring it back"`
	ShutdownDelay time.Duration `env:"AFTERWRITE_SHUTDOWN_DELAY" envDefault:"0s" takes:"0s to 1m" like:"5s" help:"how long an api that is told to stop goes on answering while /readyz says 503; set it a little longer than the interval of the load balancer's checks"`
	// Four drain as fast as eight where Redis and Postgres are near, and leave more of the machine to the writes.
	WorkerConcurrency int `env:"AFTERWRITE_WORKER_CONCURRENCY" envDefault:"4" takes:"1 to 256" help:"the number of tasks that one worker runs at once, and so of its connections to Postgres"`

	AdminToken string `env:"AFTERWRITE_ADMIN_TOKEN" takes:"16 or more visible ASCII characters" help:"a secret that opens /v1/admin of the api to whoever sends it; not set: there is no such path"`

	// Package auth of the dashboard reads these five.
	DashboardUsers          string `env:"AFTERWRITE_DASHBOARD_USERS" help:"who may sign in to the dashboard, comma separated: name:hash (a viewer) or name:operator:hash; afterwrite dashboard hash-password makes them"`
	DashboardHosts          string `env:"AFTERWRITE_DASHBOARD_HOSTS" like:"counters.example.com" help:"names that the dashboard answers to, comma separated; not set: any, where somebody signs in; needed with a user header from a proxy on this machine"`
	DashboardTrustedProxies string `env:"AFTERWRITE_DASHBOARD_TRUSTED_PROXIES" like:"10.0.0.0/8" help:"networks whose X-Forwarded headers and user header are believed, comma separated"`
	DashboardUserHeader     string `env:"AFTERWRITE_DASHBOARD_USER_HEADER" like:"X-Forwarded-User" help:"the header in which these proxies name the user"`
	DashboardOperators      string `env:"AFTERWRITE_DASHBOARD_OPERATORS" help:"those of the names in this header who may act, comma separated; the others may look"`
	DashboardWrite          bool   `env:"AFTERWRITE_DASHBOARD_WRITE" envDefault:"false" help:"let operators run, archive and delete tasks in Asynqmon; delete a flush: or drain: task rather than archive it, which blocks its ID for good"`

	DataDir   string `env:"AFTERWRITE_DATA_DIR" envDefault:".afterwrite" help:"where up keeps the data of its own Redis and Postgres"`
	Profiles  bool   `env:"AFTERWRITE_PPROF" envDefault:"false" help:"serve the profiles of Go (/debug/pprof/) on a free port of 127.0.0.1, which is logged"`
	LogLevel  string `env:"AFTERWRITE_LOG_LEVEL" envDefault:"info" takes:"debug|info|warn|error" help:"the least important lines that are logged"`
	LogFormat string `env:"AFTERWRITE_LOG_FORMAT" envDefault:"text" takes:"text|json" help:"the form of the log"`
	// OpenTelemetry's libraries read its other variables (OTEL_...) themselves.
	OTLPEndpoint string `env:"OTEL_EXPORTER_OTLP_ENDPOINT" like:"http://127.0.0.1:4318" help:"where traces go over OTLP/HTTP; not set: there are none"`
}

// FromMap reads environment. The error names every variable that is wrong, what it holds and what it takes.
func FromMap(environment map[string]string) (Config, error) {
	var c Config
	err := env.ParseWithOptions(&c, env.Options{
		Environment: environment,
		OnSet: func(name string, _ any, isDefault bool) {
			if name == "AFTERWRITE_SHARDS" {
				c.ShardsSet = !isDefault
			}
		},
	})
	if err != nil {
		return Config{}, unreadable(err, environment)
	}
	if err := c.validate(environment); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Prefix begins the names of all keys and queues in Redis: "" without a namespace, else "name:".
func (c Config) Prefix() string {
	if c.Namespace == "" {
		return ""
	}
	return c.Namespace + ":"
}

// Addr returns where a process listens: 0.0.0.0:PORT where PORT is set, else own.
func (c Config) Addr(own string) string {
	if c.Port != 0 {
		return net.JoinHostPort("0.0.0.0", strconv.Itoa(c.Port))
	}
	return own
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
