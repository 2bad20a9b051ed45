package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afterwrite/afterwrite/internal/config"
)

// environment formats the section of a command's help that lists the variables it reads; AFTERWRITE_ may be left out.
func environment(names ...string) string {
	names = append(names, "LOG_LEVEL", "LOG_FORMAT")
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

// helpWidth is how many characters a line of help has at most, after its indentation.
const helpWidth = 90

// wrapped breaks text into lines, each after the text indent.
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

// otlpEndpoint turns on traces.
const otlpEndpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"

// Help implements kong.HelpProvider.
func (upCommand) Help() string {
	return `Starts a private Redis and a private Postgres (unless REDIS_URL and DATABASE_URL say where others are), brings
the schema up to date, and runs api, worker, scheduler and dashboard. Ctrl-C stops everything, after a last flush; the
data stays and is found again by the next run.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "PORT", "DATA_DIR", "API_ADDR", "DASHBOARD_ADDR", "WORKER_ADDR",
		"SCHEDULER_ADDR", otlpEndpoint) +
		example("AFTERWRITE_API_ADDR=127.0.0.1:9090 afterwrite up")
}

// Help implements kong.HelpProvider.
func (apiCommand) Help() string {
	return `Takes writes and answers as soon as Redis has them. It starts, and takes writes, while Postgres is away. Run as
many as you like behind a load balancer.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "PORT", "API_ADDR", "PPROF",
		"FLUSH_INTERVAL", "FLUSH_BATCH", "MAX_DIRTY", "CLEAN_TTL",
		"IDEMPOTENCY_TTL", "SHUTDOWN_DELAY", "WAIT_REPLICAS", "SHARDS", "ADMIN_TOKEN", otlpEndpoint) +
		example("REDIS_URL=redis://127.0.0.1:6379/0 DATABASE_URL=postgres://me@127.0.0.1/afterwrite afterwrite api",
			"curl -X POST http://127.0.0.1:8080/v1/counters/page%3Ahome/increment")
}

// Help implements kong.HelpProvider.
func (workerCommand) Help() string {
	return `Flushes what was written to Postgres, in batches. While Postgres is away it waits; nothing is lost by that. Run
as many as you like: rows never go back to an older state.

With --drain it ends, with status 0, as soon as nothing is dirty: for cron, jobs and machines that sleep. Rows that Postgres
refuses are tried as often as usual, and then are dead letters, which it does not wait for. An outage of Postgres is waited out.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "PORT", "WORKER_ADDR", "PPROF",
		"WORKER_CONCURRENCY", "FLUSH_INTERVAL", "FLUSH_BATCH",
		"SWEEP_INTERVAL", "CLEAN_TTL", "SHARDS", "MAX_ATTEMPTS", "RETRY_BACKOFF", "TOMBSTONE_TTL", otlpEndpoint) +
		example("AFTERWRITE_WORKER_CONCURRENCY=16 afterwrite worker", "afterwrite worker --drain --timeout 10m")
}

// Help implements kong.HelpProvider.
func (schedulerCommand) Help() string {
	return `Sends the sweeps, which find counters whose task was lost, and the purges of old tombstones. Several schedulers
do the work of one, so run two: one may then die.

` + environment("REDIS_URL", "NAMESPACE", "PORT", "SCHEDULER_ADDR", "PPROF", "SWEEP_INTERVAL", "CLEAN_TTL", "SHARDS", otlpEndpoint) +
		example("AFTERWRITE_SWEEP_INTERVAL=10s afterwrite scheduler")
}

// Help implements kong.HelpProvider.
func (dashboardCommand) Help() string {
	return `Shows how far Postgres is behind, the dead letters, and under /asynq the queues. On its default address it is for this
machine's own user, who may do everything. On an address that others can reach it refuses to start unless somebody has to
sign in there: make users with the command hash-password, or name a proxy that knows who it is.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "PORT", "DASHBOARD_ADDR", "PPROF",
		"DASHBOARD_USERS", "DASHBOARD_WRITE", "DASHBOARD_HOSTS",
		"DASHBOARD_TRUSTED_PROXIES", "DASHBOARD_USER_HEADER", "DASHBOARD_OPERATORS", "CLEAN_TTL", "SHARDS", otlpEndpoint) +
		example("afterwrite dashboard hash-password --role operator ann",
			"AFTERWRITE_DASHBOARD_USERS='ann:operator:$2a$12$...' AFTERWRITE_DASHBOARD_ADDR=0.0.0.0:8081 afterwrite dashboard")
}

// Help implements kong.HelpProvider.
func (hashPasswordCommand) Help() string {
	return `Asks for a password in the terminal, or reads it from the first line of stdin, and prints what
AFTERWRITE_DASHBOARD_USERS takes. A password has 15 characters at least, and 72 bytes at most.
` + example("afterwrite dashboard hash-password --role operator ann",
		"openssl rand -base64 18 | tee password | afterwrite dashboard hash-password bob")
}

// Help implements kong.HelpProvider.
func (migrateCommand) Help() string {
	return `Applies the migrations that the database does not have yet, and then converts a Redis that the previous version has
written; everything in it is kept. Stop the processes of that version before: while one runs, Redis is not converted, and the
exit status is 1. It is safe to run from several machines at once, and to run again after it was interrupted.

Without REDIS_URL it leaves Redis alone: the first worker that starts converts it. A Redis that does not answer is an error.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "SHARDS") +
		example("afterwrite migrate --status", "afterwrite migrate")
}

// Help implements kong.HelpProvider.
func (doctorCommand) Help() string {
	return `Looks for what would lose counters, or keep afterwrite from running, and says what to do about it. It changes
nothing. The exit status is 1 when something is refused. Whether Postgres keeps up is another question: afterwrite status.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "SHARDS") +
		example("afterwrite doctor --json")
}

// Help implements kong.HelpProvider.
func (statusCommand) Help() string {
	return `Prints the same judgement as the overview of the dashboard: whether Postgres keeps up, the backlog, rates, dead letters,
processes, and what to do. It takes samples for some seconds, since rates and trends need time. It changes no counter. The
exit status is 0 if Postgres keeps up, 1 if it does not, and 2 if that cannot be determined, as when Redis does not answer.

` + environment("REDIS_URL", "NAMESPACE", "SHARDS") +
		example("afterwrite status", "afterwrite status --json --for 0s")
}

// Help implements kong.HelpProvider.
func (flushCommand) Help() string {
	return `Has the workers flush everything, or the counters that are named, at once. With --wait the exit status is 0 when Postgres
has all that was written before, and 1 when it does not have it in time; what is written meanwhile does not keep it. Dead
letters are reported apart, and not waited for. A worker has to run.

` + environment("REDIS_URL", "NAMESPACE", "SHARDS") +
		example("afterwrite flush --wait --timeout 1m", "afterwrite flush --wait page:home page:about")
}

// Help implements kong.HelpProvider.
func (healthcheckCommand) Help() string {
	return `Sends one GET request and waits up to 3 seconds. The exit status is 0 for an answer of 2xx, 1 otherwise.
` + example("afterwrite healthcheck http://127.0.0.1:8080/readyz")
}

// Help implements kong.HelpProvider.
func (verifyCommand) Help() string {
	return `Says whether Postgres has what Redis has: after a restore of either, or to be sure. Counters that only Postgres has are
normal. It changes nothing without --repair, and may run beside everything else. What it makes dirty is flushed by the next
sweep. The exit status is 1 when differences are left.

` + environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "SHARDS", "MAX_DIRTY") +
		example("afterwrite verify --json", "afterwrite verify --repair")
}

// deadVariables are what every dead command reads.
func deadVariables() string {
	return environment("REDIS_URL", "NAMESPACE", "DATABASE_URL", "SCHEMA", "SHARDS")
}

// Help implements kong.HelpProvider.
func (deadCommand) Help() string {
	return `A dead letter is a counter whose row Postgres has refused as often as it may be tried. It goes on taking writes,
but Postgres does not get them until somebody repairs the cause and redrives it, or discards it.

` + deadVariables() +
		example("afterwrite dead list", "afterwrite dead redrive --all --wait")
}

// Help implements kong.HelpProvider.
func (deadListCommand) Help() string {
	return `Shows every dead letter, with what Redis and what Postgres have of the counter. It changes nothing. While Postgres
is away its column is "?".

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
	return `Repair the cause first, a constraint or a trigger. What lands in Postgres is what the counter is now, with the writes
it took while it was dead. A worker has to run. Redriving twice, or something that is still refused, does no harm: that
becomes a dead letter again. The exit status is 1 when a key that was named is not dead, or, with --wait, when one is not
in Postgres.

` + deadVariables() +
		example("afterwrite dead redrive page:home page:about", "afterwrite dead redrive --all --wait --timeout 2m")
}

// Help implements kong.HelpProvider.
func (deadDiscardCommand) Help() string {
	return `Gives up every write that Postgres does not have, and returns the counter to Postgres's value; where Postgres has
none, the counter is deleted. It shows what is dropped and asks first. Nothing is dropped when the counter is written in
between. No worker is needed.

` + deadVariables() +
		example("afterwrite dead discard page:home", "afterwrite dead discard --yes page:home")
}
