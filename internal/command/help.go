package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afterwrite/afterwrite/internal/config"
)

// environment formats the help section about a command's variables. Names may omit AFTERWRITE_.
func environment(names ...string) string {
	names = append(names, "LOG_LEVEL", "LOG_FORMAT")
	if slices.Contains(names, "REDIS_URL") {
		names = append(names, "REDIS_CA", "REDIS_CERT", "REDIS_KEY")
	}
	var b strings.Builder
	b.WriteString("Environment:\n\n")
	for _, v := range config.Variables() {
		if !slices.Contains(names, v.Name) && !slices.Contains(names, strings.TrimPrefix(v.Name, "AFTERWRITE_")) {
			continue
		}
		b.WriteString("    " + v.Name)
		if v.Default != "" {
			fmt.Fprintf(&b, " [%s]", v.Default)
		}
		b.WriteString(wrapped(v.Help, "\n        ") + "\n")
	}
	return b.String()
}

// helpWidth bounds a line of help after its indentation, in characters.
const helpWidth = 90

// wrapped breaks text into lines, each of which begins with indent.
func wrapped(text, indent string) string {
	var b strings.Builder
	width := helpWidth
	for word := range strings.FieldsSeq(text) {
		if width += 1 + len(word); width > helpWidth {
			b.WriteString(indent)
			width = len(word)
		} else {
			b.WriteString(" ")
		}
		b.WriteString(word)
	}
	return b.String()
}

// example formats the last section of a command's help.
func example(lines ...string) string {
	return "\nExample:\n\n    " + strings.Join(lines, "\n    ") + "\n"
}

// otlpEndpoint is the variable that turns on tracing.
const otlpEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"

// Help implements kong.HelpProvider.
func (upCommand) Help() string {
	return `Starts a private Redis and a private Postgres (unless REDIS_URL and DATABASE_URL are set), brings
the schema up to date, and runs api, worker, scheduler and dashboard. Ctrl-C stops everything, after a last flush. The
next run uses the same data.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "MAPPINGS", "PORT", "DATA_DIR", "API_ADDR", "DASHBOARD_ADDR",
		"WORKER_ADDR", "SCHEDULER_ADDR", otlpEndpoint) +
		example("AFTERWRITE_API_ADDR=127.0.0.1:9090 afterwrite up")
}

// Help implements kong.HelpProvider.
func (apiCommand) Help() string {
	return `Accepts writes, and answers as soon as Redis has them. It starts and accepts writes while Postgres is down. Run any
number of them behind a load balancer. On an address that other machines can reach, it refuses to start without API keys:
make one with the command api-key new.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "DATABASE_READ_URL", "SCHEMA", "MAPPINGS", "PORT", "API_ADDR", "PPROF",
		"FLUSH_INTERVAL", "FLUSH_BATCH", "MAX_DIRTY", "CLEAN_TTL", "HISTORY", "MAX_HISTORY",
		"IDEMPOTENCY_TTL", "SHUTDOWN_DELAY", "DURABILITY", "WAIT_REPLICAS", "SHARDS", "TOP",
		"RESP_ADDR", "API_KEYS", "API_KEYS_FILE", "API_OPEN", "API_RATE", "ADMIN_TOKEN", "TLS_CERT", "TLS_KEY", "CORS_ORIGINS",
		otlpEndpoint) +
		example("REDIS_URL=redis://127.0.0.1:6379/0 DATABASE_URL=postgres://me@127.0.0.1/afterwrite afterwrite api",
			"curl -X POST http://127.0.0.1:8080/v1/counters/page%3Ahome/increment")
}

// Help implements kong.HelpProvider.
func (workerCommand) Help() string {
	return `Writes dirty counters to Postgres in batches. While Postgres is down it waits, and nothing is lost. Run any number
of them: rows never go back to an older state.

With --drain it ends, with status 0, as soon as nothing is dirty: for cron, jobs and machines that sleep. Rows that Postgres
refuses are retried as usual, and then are dead letters, which it does not wait for. It does wait for a Postgres that is down.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "MAPPINGS", "PORT", "WORKER_ADDR", "PPROF",
		"WORKER_CONCURRENCY", "FLUSH_INTERVAL", "FLUSH_BATCH",
		"SWEEP_INTERVAL", "CLEAN_TTL", "SHARDS", "MAX_ATTEMPTS", "RETRY_BACKOFF", "TOMBSTONE_TTL",
		"HISTORY", "HISTORY_RETENTION", otlpEndpoint) +
		example("AFTERWRITE_WORKER_CONCURRENCY=16 afterwrite worker", "afterwrite worker --drain --timeout 10m")
}

// Help implements kong.HelpProvider.
func (schedulerCommand) Help() string {
	return `Sends the sweeps, which find counters whose task was lost, and the purges of old tombstones. Several schedulers
send each task once, so run two for redundancy.

` + environment("REDIS_URL", "NAMESPACE", "PORT", "SCHEDULER_ADDR", "PPROF", "SWEEP_INTERVAL", "CLEAN_TTL", "SHARDS", otlpEndpoint) +
		example("AFTERWRITE_SWEEP_INTERVAL=10s afterwrite scheduler")
}

// Help implements kong.HelpProvider.
func (dashboardCommand) Help() string {
	return `Shows how far Postgres is behind, the dead letters, and under /asynq the queues. On its default address, only this
machine can reach it, and every visitor is an operator. On an address that others can reach, it refuses to start without a
sign-in: make users with the command hash-password, or configure a proxy that names the user.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "MAPPINGS", "PORT", "DASHBOARD_ADDR", "PPROF",
		"DASHBOARD_USERS", "DASHBOARD_WRITE", "DASHBOARD_HOSTS",
		"DASHBOARD_TRUSTED_PROXIES", "DASHBOARD_USER_HEADER", "DASHBOARD_OPERATORS", "CLEAN_TTL", "SHARDS", otlpEndpoint) +
		example("afterwrite dashboard hash-password --role operator ann",
			"AFTERWRITE_DASHBOARD_USERS='ann:operator:$2a$12$...' AFTERWRITE_DASHBOARD_ADDR=0.0.0.0:8081 afterwrite dashboard")
}

// Help implements kong.HelpProvider.
func (hashPasswordCommand) Help() string {
	return `Asks for a password in the terminal, or reads it from the first line of stdin, and prints an
entry for AFTERWRITE_DASHBOARD_USERS. A password must have at least 15 characters and at most 72 bytes.
` + example("afterwrite dashboard hash-password --role operator ann",
		"openssl rand -base64 18 | tee password | afterwrite dashboard hash-password bob")
}

// Help implements kong.HelpProvider.
func (migrateCommand) Help() string {
	return `Applies the pending migrations, then converts a Redis of the previous version, without losing data. Stop the
processes of that version before: while one runs, Redis is not converted, and the exit status is 1. It is safe to run it
from several machines at once, and again after an interruption.

Without REDIS_URL it does not touch Redis: the first worker converts it. If Redis does not answer, that is an error.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "SHARDS", "TOP") +
		example("afterwrite migrate --status", "afterwrite migrate")
}

// Help implements kong.HelpProvider.
func (doctorCommand) Help() string {
	return `Finds settings that would lose counters or keep afterwrite from running, and prints the fix for each. It changes
nothing. The exit status is 1 if something is refused. Whether Postgres keeps up is shown by afterwrite status.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "DATABASE_READ_URL", "SCHEMA", "MAPPINGS", "SHARDS", "DURABILITY",
		"WAIT_REPLICAS") +
		example("afterwrite doctor --json")
}

// Help implements kong.HelpProvider.
func (statusCommand) Help() string {
	return `Prints the same judgement as the overview of the dashboard: whether Postgres keeps up, the backlog, rates, dead letters,
processes, and what to do. It takes samples for some seconds, since rates and trends need time. It changes no counter. The
exit status is 0 if Postgres keeps up, 1 if it does not, and 2 if that is unknown, for example because Redis does not answer.

` + environment("REDIS_URL", "NAMESPACE", "SHARDS") +
		example("afterwrite status", "afterwrite status --json --for 0s")
}

// Help implements kong.HelpProvider.
func (flushCommand) Help() string {
	return `Makes the workers flush everything, or the given counters, at once. With --wait the exit status is 0 if Postgres has all
writes from before the command, and 1 after the timeout; it does not wait for later writes, nor for dead letters, which
are reported separately. A worker must be running.

` + environment("REDIS_URL", "NAMESPACE", "SHARDS") +
		example("afterwrite flush --wait --timeout 1m", "afterwrite flush --wait page:home page:about")
}

// Help implements kong.HelpProvider.
func (historyCommand) Help() string {
	return `Shows the operations on a counter of AFTERWRITE_HISTORY, or of a mapping with history: true, in order: those that Postgres
has, and then those that only Redis has yet.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "SHARDS") +
		example("afterwrite history likes:7", "afterwrite history --after 41 --limit 10 likes:7")
}

// Help implements kong.HelpProvider.
func (apiKeyCommand) Help() string {
	return `A client sends its key as Authorization: Bearer. The settings have only the hash of the key, so nobody can read it there.
The command reads and changes nothing: copy the printed line into AFTERWRITE_API_KEYS or AFTERWRITE_API_KEYS_FILE of the api.
` + example("afterwrite api-key new web", "afterwrite api-key new report --scopes read --prefix team1/")
}

// Help implements kong.HelpProvider.
func (healthcheckCommand) Help() string {
	return `Sends one GET request and waits up to 3 seconds. The exit status is 0 for an answer of 2xx, 1 otherwise. For an https
URL of this machine (localhost, 127.0.0.1, ::1) it accepts any certificate, since the certificate has another name.
` + example("afterwrite healthcheck http://127.0.0.1:8080/readyz")
}

// Help implements kong.HelpProvider.
func (verifyCommand) Help() string {
	return `Compares Redis with Postgres, for example after a restore of either. Counters that only Postgres has are normal. Without
--repair it changes nothing. It may run beside all processes. Keys that it makes dirty are flushed by the next sweep. The
exit status is 1 if differences are left.

With --history it also replays the records of each counter that has some: they must lead to its row, without a gap
and with no version twice. --repair never invents or removes a record.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "MAPPINGS", "SHARDS", "MAX_DIRTY", "HISTORY") +
		example("afterwrite verify --json", "afterwrite verify --repair", "afterwrite verify --history")
}

// Help implements kong.HelpProvider.
func (mappingsCommand) Help() string {
	return `A mapping says which counters are also written to a column of one of your own tables: see docs/mappings.md. The
commands read the file of AFTERWRITE_MAPPINGS. They need Postgres, but not Redis.

` + environment("DATABASE_URL", "SCHEMA", "MAPPINGS") +
		example("AFTERWRITE_MAPPINGS=mappings.yaml afterwrite mappings check")
}

// Help implements kong.HelpProvider.
func (mappingsCheckCommand) Help() string {
	return `Reads the file, and compares it with the tables, columns, unique indexes and rights that Postgres has. It prints what to
change, with the GRANT statements to run. It changes nothing. Use the role of the processes in DATABASE_URL. The exit status
is 1 if something is refused; the api and the worker do not start then.

` + environment("DATABASE_URL", "SCHEMA", "MAPPINGS") +
		example("AFTERWRITE_MAPPINGS=mappings.yaml afterwrite mappings check", "afterwrite mappings check --json")
}

// Help implements kong.HelpProvider.
func (mappingsImportCommand) Help() string {
	return `Makes a counter for each row whose column has a value other than NULL and 0 and that has no counter yet. Otherwise a counter
starts from its column when it is first used, so import is needed only for lists and sums of counters. It may run beside all
processes. It may be repeated; if it is interrupted, it prints the option with which to go on. It changes no table of yours.

` + environment("DATABASE_URL", "SCHEMA", "MAPPINGS") +
		example("afterwrite mappings import post-likes", `afterwrite mappings import post-likes --rate 10000 --after '["4711"]'`)
}

// Help implements kong.HelpProvider.
func (mappingsBackfillCommand) Help() string {
	return `Writes the value of every counter of the mapping to its column, where it differs: for a new mapping, and for rows that were
inserted after their counters were flushed. It may run beside all processes: it never overwrites a value by an older one. It
may be repeated. With missing: insert it inserts rows; otherwise it counts those that do not exist. The exit status is 1 if
Postgres refused a value, or another transaction locked a row all the time.

` + environment("DATABASE_URL", "SCHEMA", "MAPPINGS") +
		example("afterwrite mappings backfill post-likes", "afterwrite mappings backfill post-likes --rate 5000 --json")
}

// Help implements kong.HelpProvider.
func (mappingsVerifyCommand) Help() string {
	return `Compares each counter of the mapping in Postgres with its column, for example after a restore or after somebody else wrote the
column. Counters that are not flushed yet are no difference. It may run beside all processes. Without --repair it changes
nothing; --repair writes the counters that differ, as backfill does. The exit status is 1 if differences are left.

` + environment("DATABASE_URL", "SCHEMA", "MAPPINGS") +
		example("afterwrite mappings verify post-likes", "afterwrite mappings verify post-likes --unimported --json",
			"afterwrite mappings verify post-likes --repair")
}

// deadVariables are the variables of every dead command.
func deadVariables() string {
	return environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "MAPPINGS", "SHARDS")
}

// Help implements kong.HelpProvider.
func (deadCommand) Help() string {
	return `A dead letter is a counter whose row Postgres has refused in all attempts. It still accepts writes, but Postgres does
not get them until an operator removes the cause and redrives it, or discards it.

` + deadVariables() +
		example("afterwrite dead list", "afterwrite dead redrive --all --wait")
}

// Help implements kong.HelpProvider.
func (deadListCommand) Help() string {
	return `Shows every dead letter, with the counter's states in Redis and Postgres. It changes nothing. While Postgres is down,
its column is "?".

` + deadVariables() +
		example("afterwrite dead list --limit 20", "afterwrite dead list --json")
}

// Help implements kong.HelpProvider.
func (deadShowCommand) Help() string {
	return `Shows one dead letter. It changes nothing.

` + deadVariables() +
		example("afterwrite dead show page:home", "afterwrite dead show --json -- -key-with-a-dash")
}

// Help implements kong.HelpProvider.
func (deadRedriveCommand) Help() string {
	return `Remove the cause first, a constraint or a trigger. Postgres gets the counter's present value, including the writes while
it was dead. A worker must be running. Redriving twice does no harm; a counter that is still refused becomes a dead letter
again. The exit status is 1 if a given key is not dead or, with --wait, not in Postgres.

` + deadVariables() +
		example("afterwrite dead redrive page:home page:about", "afterwrite dead redrive --all --wait --timeout 2m")
}

// Help implements kong.HelpProvider.
func (deadDiscardCommand) Help() string {
	return `Drops every write that Postgres does not have, and returns the counter to Postgres's value; if Postgres has none, the
counter is deleted. It shows the values and asks first. If the counter is written in between, nothing is dropped. It needs
no worker.

` + deadVariables() +
		example("afterwrite dead discard page:home", "afterwrite dead discard --yes page:home")
}
