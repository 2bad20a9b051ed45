package command

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/afterwrite/afterwrite/internal/config"
)

// variable is an environment variable as the help shows it.
type variable struct {
	name, meaning string
}

// meanings says what each variable of config.Config is for, in the order in which the help lists them.
var meanings = []variable{
	{name: "REDIS_URL", meaning: "redis://, rediss://, unix://, redis-sentinel:// or redis-cluster://"},
	{name: "DATABASE_URL", meaning: "postgres://user:password@host:port/database"},
	{name: "PORT", meaning: "listen on 0.0.0.0 and this port instead of the address below"},
	{name: "AFTERWRITE_API_ADDR", meaning: "where the api listens"},
	{name: "AFTERWRITE_DASHBOARD_ADDR", meaning: "where the dashboard listens; others than loopback need users"},
	{name: "AFTERWRITE_WORKER_ADDR", meaning: "where the worker serves /metrics, /healthz, /readyz"},
	{name: "AFTERWRITE_SCHEDULER_ADDR", meaning: "where the scheduler serves /metrics, /healthz, /readyz"},
	{name: "AFTERWRITE_FLUSH_INTERVAL", meaning: "how long a written counter waits for others at most"},
	{name: "AFTERWRITE_FLUSH_BATCH", meaning: "the most rows in one statement"},
	{name: "AFTERWRITE_SWEEP_INTERVAL", meaning: "between two looks for counters whose task was lost"},
	{name: "AFTERWRITE_MAX_DIRTY", meaning: "counters that Postgres does not have, past which writes get 503"},
	{name: "AFTERWRITE_CLEAN_TTL", meaning: "how long Redis keeps a counter that Postgres has"},
	{name: "AFTERWRITE_IDEMPOTENCY_TTL", meaning: "how long the answer to an Idempotency-Key is kept"},
	{name: "AFTERWRITE_WAIT_REPLICAS", meaning: "replicas of Redis that durability=replica waits for"},
	{name: "AFTERWRITE_SHARDS", meaning: "parts of the key space; not set: what Redis has, if it holds counters"},
	{name: "AFTERWRITE_MAX_ATTEMPTS", meaning: "tries of a row that Postgres refuses"},
	{name: "AFTERWRITE_RETRY_BACKOFF", meaning: "wait before the second of them; it doubles"},
	{name: "AFTERWRITE_TOMBSTONE_TTL", meaning: "how long a deleted row is kept"},
	{name: "AFTERWRITE_SHUTDOWN_DELAY", meaning: "how long an api that is to stop goes on answering"},
	{name: "AFTERWRITE_WORKER_CONCURRENCY", meaning: "tasks that one worker runs at once"},
	{name: "AFTERWRITE_ADMIN_TOKEN", meaning: "opens /v1/admin to who sends it; 16 characters or more"},
	{name: "AFTERWRITE_DASHBOARD_USERS", meaning: "who may sign in: name:hash (a viewer) or name:operator:hash, ..."},
	{name: "AFTERWRITE_DASHBOARD_WRITE", meaning: "let operators run, archive and delete tasks"},
	{name: "AFTERWRITE_DASHBOARD_HOSTS", meaning: "names that the dashboard answers to; needed with a user header from this machine"},
	{name: "AFTERWRITE_DASHBOARD_TRUSTED_PROXIES", meaning: "networks whose headers are believed, like 10.0.0.0/8"},
	{name: "AFTERWRITE_DASHBOARD_USER_HEADER", meaning: "in which they say who it is, like X-Forwarded-User"},
	{name: "AFTERWRITE_DASHBOARD_OPERATORS", meaning: "those of these names who may act"},
	{name: "AFTERWRITE_DATA_DIR", meaning: "where the private Redis and Postgres keep their data"},
	{name: "AFTERWRITE_PPROF", meaning: "serve Go's profiles on a loopback port, which is logged"},
	{name: "AFTERWRITE_LOG_LEVEL", meaning: "debug, info, warn or error"},
	{name: "AFTERWRITE_LOG_FORMAT", meaning: "text or json"},
	{name: "OTEL_EXPORTER_OTLP_ENDPOINT", meaning: "send traces there, like http://127.0.0.1:4318; not set: none"},
}

// defaults reads the default values from config.Config, so that they are written down once.
func defaults() map[string]string {
	standard := make(map[string]string)
	for field := range reflect.TypeFor[config.Config]().Fields() {
		if name := field.Tag.Get("env"); name != "" {
			standard[name] = field.Tag.Get("envDefault")
		}
	}
	return standard
}

// environment formats the section of a command's help that lists the variables it reads; AFTERWRITE_ may be left out.
func environment(names ...string) string {
	wanted := make(map[string]bool, len(names))
	for _, name := range append(names, "LOG_LEVEL", "LOG_FORMAT") {
		wanted[name] = true
	}
	standard := defaults()

	var b strings.Builder
	b.WriteString("Environment:\n\n")
	for _, v := range meanings {
		if !wanted[v.name] && !wanted[strings.TrimPrefix(v.name, "AFTERWRITE_")] {
			continue
		}
		fmt.Fprintf(&b, "    %-37s %s", v.name, v.meaning)
		if s := standard[v.name]; s != "" {
			fmt.Fprintf(&b, " [%s]", s)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// example formats the last section of a command's help.
func example(lines ...string) string {
	return "\nExample:\n\n    " + strings.Join(lines, "\n    ") + "\n"
}
