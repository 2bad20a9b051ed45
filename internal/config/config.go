// Package config reads all settings from environment variables into one validated struct. Other packages read only variables that
// describe the machine: AFTERWRITE_REDIS_SERVER and AFTERWRITE_POSTGRES_BIN (package local), PATH, NO_COLOR, and libpq's variables
// (PGSSLMODE and so on, lib/pq).
//
// The tags of a field are the only place that describes its variable. They define the checks, the errors, the help of each
// command and docs/configuration.md:
//
//	env         the variable
//	envDefault  its default
//	help        its meaning
//	allowed     its allowed values; those of the forms "1s to 1h", "text|json" and "host:port" are checked by this tag
//	example     an example for errors, if the default is empty or a poor example
//	since       the first version that reads it, if not 0.1
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

// Config has all settings.
type Config struct {
	RedisURL    string `env:"REDIS_URL" example:"redis://127.0.0.1:6379/0" help:"the address of Redis: redis://user:password@host:port/db, rediss:// with TLS, unix:///path?db=0, redis-sentinel://h1:p,h2:p/db?master=name (with &sentinel_username= and &sentinel_password= if the sentinels ask for them) or redis-cluster://h1:p,h2:p; rediss-sentinel:// and rediss-cluster:// with TLS"`
	RedisCA     string `env:"AFTERWRITE_REDIS_CA" example:"/etc/afterwrite/redis-ca.crt" since:"0.2" help:"a PEM file with the certificates of the CAs that may sign the certificates of Redis, its sentinels and the nodes of a cluster, instead of the system's; it is read at start, and needs a REDIS_URL with TLS"`
	RedisCert   string `env:"AFTERWRITE_REDIS_CERT" example:"/etc/afterwrite/redis-client.crt" since:"0.2" help:"a PEM file with the client certificate for a Redis that asks for one, and its intermediates; it is read again at each new connection"`
	RedisKey    string `env:"AFTERWRITE_REDIS_KEY" example:"/etc/afterwrite/redis-client.key" since:"0.2" help:"the PEM file with the private key of that certificate"`
	DatabaseURL string `env:"DATABASE_URL" example:"postgres://user@127.0.0.1/afterwrite" help:"the address of Postgres: postgres://user:password@host:port/database, or key=value pairs in the format of libpq; with a standby that may become the primary, list the hosts: postgres://user:password@host1:port,host2:port/database?target_session_attrs=read-write"`
	ReadURL     string `env:"AFTERWRITE_DATABASE_READ_URL" example:"postgres://user@standby/afterwrite" since:"0.2" help:"the address of a streaming standby of the same database; the api reads cold counters and lists there, as long as the standby is not behind, and otherwise from DATABASE_URL"`
	Port        int    `env:"PORT" allowed:"0 to 65535" example:"8080" help:"the port to listen on, at 0.0.0.0, instead of the address below; for hosting platforms that set it"`

	APIAddr       string `env:"AFTERWRITE_API_ADDR" envDefault:"127.0.0.1:8080" allowed:"host:port" help:"the address on which the api listens"`
	RESPAddr      string `env:"AFTERWRITE_RESP_ADDR" allowed:"host:port" example:"127.0.0.1:6380" since:"0.2" help:"the address on which the api also listens for the Redis protocol, with the certificate and the keys of the api; if not set, it does not, except that afterwrite up uses 127.0.0.1:6380"`
	DashboardAddr string `env:"AFTERWRITE_DASHBOARD_ADDR" envDefault:"127.0.0.1:8081" allowed:"host:port" help:"the address on which the dashboard listens; if other machines can reach it, users or a trusted proxy must be set"`
	WorkerAddr    string `env:"AFTERWRITE_WORKER_ADDR" envDefault:"127.0.0.1:8082" allowed:"host:port" help:"the address on which the worker serves /healthz, /readyz and /metrics"`
	SchedulerAddr string `env:"AFTERWRITE_SCHEDULER_ADDR" envDefault:"127.0.0.1:8083" allowed:"host:port" help:"the address on which the scheduler serves /healthz, /readyz and /metrics"`

	Schema    string `env:"AFTERWRITE_SCHEMA" envDefault:"afterwrite" allowed:"a name of a-z, 0-9 and _" since:"0.2" help:"the Postgres schema of the tables; migrate creates it; it must be the same for all processes"`
	Namespace string `env:"AFTERWRITE_NAMESPACE" allowed:"1 to 32 characters of a-z, 0-9 and -" example:"shop" since:"0.2" help:"the prefix of all keys and queues in Redis, so that several installations can share one; it must be the same for all processes, and cannot be changed while Redis holds counters"`
	// At least 1s, Asynq's minimum for a group.
	FlushInterval  time.Duration `env:"AFTERWRITE_FLUSH_INTERVAL" envDefault:"1s" allowed:"1s to 1h" help:"how long a dirty key waits at most for others to share its batch"`
	FlushBatch     int           `env:"AFTERWRITE_FLUSH_BATCH" envDefault:"1000" allowed:"1 to 10000" help:"the most rows in one statement"`
	SweepInterval  time.Duration `env:"AFTERWRITE_SWEEP_INTERVAL" envDefault:"5s" allowed:"1s to 1h" help:"the time between two sweeps for dirty keys whose task was lost"`
	MaxDirty       int64         `env:"AFTERWRITE_MAX_DIRTY" envDefault:"1000000" allowed:"1 to 1000000000" help:"the number of dirty keys beyond which writes to clean keys get 503 backpressure"`
	CleanTTL       time.Duration `env:"AFTERWRITE_CLEAN_TTL" envDefault:"1h" allowed:"1s to 8760h" help:"how long an entry stays in Redis after its last write, once Postgres has it"`
	IdempotencyTTL time.Duration `env:"AFTERWRITE_IDEMPOTENCY_TTL" envDefault:"24h" allowed:"1s to 720h" help:"how long the response to a request with an Idempotency-Key is kept"`
	Durability     string        `env:"AFTERWRITE_DURABILITY" envDefault:"memory" allowed:"memory|replica|disk" since:"0.2" help:"where the api must have a write before it answers, unless the request says so itself (Prefer: durability): the memory of Redis, the memory of replicas as well, or its disk"`
	WaitReplicas   int           `env:"AFTERWRITE_WAIT_REPLICAS" envDefault:"1" allowed:"1 to 100" help:"the number of replicas of Redis that must have a write with durability=replica before it is answered"`
	Shards         int           `env:"AFTERWRITE_SHARDS" envDefault:"16" allowed:"1 to 4096" help:"the number of shards that keys are divided into; it cannot be changed while Redis holds entries; if not set, processes use the number that Redis has"`
	// ShardsSet reports whether AFTERWRITE_SHARDS is set. If not, the number that Redis has wins.
	ShardsSet  bool
	Top        bool   `env:"AFTERWRITE_TOP" envDefault:"false" since:"0.2" help:"whether the api serves /v1/top; afterwrite migrate then creates the index that it needs, which makes flushes about 40 % slower"`
	Mappings   string `env:"AFTERWRITE_MAPPINGS" example:"/etc/afterwrite/mappings.yaml" since:"0.2" help:"a YAML file that says which counters are also written to columns of your own tables; it is read at start, and must be the same for all processes"`
	History    string `env:"AFTERWRITE_HISTORY" allowed:"keys, and prefixes of keys followed by *, comma separated" example:"likes:*,quota:*" since:"0.2" help:"the counters of which every operation is kept in order, in the table operations; it must be the same for all processes"`
	MaxHistory int64  `env:"AFTERWRITE_MAX_HISTORY" envDefault:"1000000" allowed:"1000 to 1000000000" since:"0.2" help:"the number of these operations that Redis holds until Postgres has them, shared equally by the shards; beyond it, further operations of these counters get 503 backpressure"`
	// Partitions are dropped by whole days.
	HistoryRetention time.Duration `env:"AFTERWRITE_HISTORY_RETENTION" envDefault:"2160h" allowed:"24h to 876000h" since:"0.2" help:"how long the operations of these counters are kept in Postgres, by whole days"`
	MaxAttempts      int           `env:"AFTERWRITE_MAX_ATTEMPTS" envDefault:"8" allowed:"1 to 100" help:"how often a row that Postgres refuses is tried before it becomes a dead letter"`
	RetryBackoff     time.Duration `env:"AFTERWRITE_RETRY_BACKOFF" envDefault:"1s" allowed:"10ms to 10m" help:"the wait before the second of these attempts; it doubles with each attempt, up to 10 minutes"`
	TombstoneTTL     time.Duration `env:"AFTERWRITE_TOMBSTONE_TTL" envDefault:"168h" allowed:"1m to 87600h" help:"how long a deleted row is kept, so that a late flush cannot bring it back"`
	ShutdownDelay    time.Duration `env:"AFTERWRITE_SHUTDOWN_DELAY" envDefault:"0s" allowed:"0s to 1m" example:"5s" help:"how long an api keeps serving after SIGTERM while its /readyz answers 503; set it a little longer than the interval of the load balancer's checks"`
	// If Redis and Postgres are near, 4 drain as fast as 8, and leave more CPU to the writes.
	WorkerConcurrency int `env:"AFTERWRITE_WORKER_CONCURRENCY" envDefault:"4" allowed:"1 to 256" help:"how many tasks a worker runs at the same time; it opens as many connections to Postgres"`

	// Package api/auth parses the keys.
	APIKeys     string `env:"AFTERWRITE_API_KEYS" since:"0.2" help:"the API keys, comma separated: name:hash:scopes or name:hash:scopes:prefix, as afterwrite api-key new prints them; scopes are read, write and admin, joined by +"`
	APIKeysFile string `env:"AFTERWRITE_API_KEYS_FILE" example:"/etc/afterwrite/keys" since:"0.2" help:"a file with the API keys, one a line, instead of AFTERWRITE_API_KEYS; empty lines and lines that begin with # are ignored; it is read again when it changes, and on SIGHUP"`
	APIOpen     bool   `env:"AFTERWRITE_API_OPEN" envDefault:"false" since:"0.2" help:"whether the api may listen on an address that other machines can reach although there are no API keys, because a proxy or a firewall decides who reaches it"`
	APIRate     int    `env:"AFTERWRITE_API_RATE" envDefault:"0" allowed:"0 to 100000000" example:"1000" since:"0.2" help:"the operations a second that each API key may send to each api process, with a burst of twice as many; without API keys, all clients share one limit; 0 means no limit"`
	AdminToken  string `env:"AFTERWRITE_ADMIN_TOKEN" allowed:"16 or more visible ASCII characters" help:"an API key with the scope admin only, for requests to /v1/admin; without it and without API keys of that scope, these paths do not exist"`
	TLSCert     string `env:"AFTERWRITE_TLS_CERT" example:"/etc/afterwrite/tls.crt" since:"0.2" help:"a PEM file with the certificate of the api and its intermediates: it then serves HTTPS only; the file is read again when it changes, and on SIGHUP"`
	TLSKey      string `env:"AFTERWRITE_TLS_KEY" example:"/etc/afterwrite/tls.key" since:"0.2" help:"the PEM file with the private key of that certificate"`
	CORSOrigins string `env:"AFTERWRITE_CORS_ORIGINS" allowed:"* or origins" example:"https://app.example.com" since:"0.2" help:"the origins whose web pages may use the api in a browser, comma separated, or * for all; if not set, no answer has a header of CORS"`

	// Package dashboard/auth parses these five.
	DashboardUsers          string `env:"AFTERWRITE_DASHBOARD_USERS" help:"the users of the dashboard, comma separated: name:hash (a viewer) or name:operator:hash, as afterwrite dashboard hash-password prints them"`
	DashboardHosts          string `env:"AFTERWRITE_DASHBOARD_HOSTS" example:"counters.example.com" help:"the host names that the dashboard accepts, comma separated; if not set, it accepts any, provided that users sign in; required if a proxy on this machine sends the user header"`
	DashboardTrustedProxies string `env:"AFTERWRITE_DASHBOARD_TRUSTED_PROXIES" example:"10.0.0.0/8" help:"the networks of proxies whose X-Forwarded headers and user header are trusted, comma separated"`
	DashboardUserHeader     string `env:"AFTERWRITE_DASHBOARD_USER_HEADER" example:"X-Forwarded-User" help:"the header in which these proxies send the user's name"`
	DashboardOperators      string `env:"AFTERWRITE_DASHBOARD_OPERATORS" help:"the names in this header that are operators, comma separated; all others are viewers"`
	DashboardWrite          bool   `env:"AFTERWRITE_DASHBOARD_WRITE" envDefault:"false" help:"whether operators may run, archive and delete tasks in Asynqmon; delete a flush: or drain: task rather than archive it, since an archived task blocks its ID"`

	DataDir   string `env:"AFTERWRITE_DATA_DIR" envDefault:".afterwrite" help:"the folder in which afterwrite up keeps the data of its private Redis and Postgres"`
	Profiles  bool   `env:"AFTERWRITE_PPROF" envDefault:"false" help:"whether to serve Go's profiles (/debug/pprof/) on a free port of 127.0.0.1, which is logged"`
	LogLevel  string `env:"AFTERWRITE_LOG_LEVEL" envDefault:"info" allowed:"debug|info|warn|error" help:"the lowest level that is logged"`
	LogFormat string `env:"AFTERWRITE_LOG_FORMAT" envDefault:"text" allowed:"text|json" help:"the format of the log"`
	// OpenTelemetry's libraries read its other variables (OTEL_...) themselves.
	OTLPEndpoint string `env:"OTEL_EXPORTER_OTLP_ENDPOINT" example:"http://127.0.0.1:4318" help:"the address to which traces are sent over OTLP/HTTP; if not set, there are none"`
}

// FromMap reads environment. The error has one line for each wrong variable: its name, the allowed values, and its value.
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

// Prefix returns the prefix of all keys and queues in Redis: "" without a namespace, otherwise "name:".
func (c Config) Prefix() string {
	if c.Namespace == "" {
		return ""
	}
	return c.Namespace + ":"
}

// Addr returns the address on which a process listens: 0.0.0.0:PORT if PORT is set, otherwise own.
func (c Config) Addr(own string) string {
	if c.Port != 0 {
		return net.JoinHostPort("0.0.0.0", strconv.Itoa(c.Port))
	}
	return own
}

// RequireRedis returns an error if REDIS_URL is not set.
func (c Config) RequireRedis() error {
	if c.RedisURL == "" {
		return errors.New("REDIS_URL is not set: set it (redis://127.0.0.1:6379/0), or use `afterwrite up`, which starts its own")
	}
	return nil
}

// RequirePostgres returns an error if DATABASE_URL is not set.
func (c Config) RequirePostgres() error {
	if c.DatabaseURL == "" {
		return errors.New("DATABASE_URL is not set: set it (postgres://user@127.0.0.1/afterwrite), " +
			"or use `afterwrite up`, which starts its own")
	}
	return nil
}

// Redact returns rawURL without its password, for logs. It hides all of a URL that cannot be parsed.
func Redact(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme == "" {
		return "(not a URL: hidden)"
	}
	return u.Redacted()
}
