package command

// Help implements kong.HelpProvider.
func (upCommand) Help() string {
	return `Starts a private Redis and a private Postgres (unless REDIS_URL and DATABASE_URL say where others are), brings
the schema up to date, and runs api, worker, scheduler and dashboard. Ctrl-C stops everything, after a last flush; the
data stays and is found again by the next run.

` + environment("REDIS_URL", "DATABASE_URL", "PORT", "DATA_DIR", "API_ADDR", "DASHBOARD_ADDR", "WORKER_ADDR", "SCHEDULER_ADDR") +
		example("AFTERWRITE_API_ADDR=127.0.0.1:9090 afterwrite up")
}

// Help implements kong.HelpProvider.
func (apiCommand) Help() string {
	return `Takes writes and answers as soon as Redis has them. It starts, and takes writes, while Postgres is away. Run as
many as you like behind a load balancer.

` + environment("REDIS_URL", "DATABASE_URL", "PORT", "API_ADDR", "FLUSH_INTERVAL", "FLUSH_BATCH", "MAX_DIRTY", "CLEAN_TTL", "SHARDS") +
		example("REDIS_URL=redis://127.0.0.1:6379/0 DATABASE_URL=postgres://me@127.0.0.1/afterwrite afterwrite api",
			"curl -X POST http://127.0.0.1:8080/v1/counters/page%3Ahome/increment")
}

// Help implements kong.HelpProvider.
func (workerCommand) Help() string {
	return `Flushes what was written to Postgres, in batches. While Postgres is away it waits; nothing is lost by that. Run
as many as you like: rows never go back to an older state.

` + environment("REDIS_URL", "DATABASE_URL", "PORT", "WORKER_ADDR", "WORKER_CONCURRENCY", "FLUSH_INTERVAL", "FLUSH_BATCH",
		"SWEEP_INTERVAL", "CLEAN_TTL", "SHARDS", "MAX_ATTEMPTS", "RETRY_BACKOFF", "TOMBSTONE_TTL") +
		example("AFTERWRITE_WORKER_CONCURRENCY=16 afterwrite worker")
}

// Help implements kong.HelpProvider.
func (schedulerCommand) Help() string {
	return `Sends the sweeps, which find counters whose task was lost, and the purges of old tombstones. Several schedulers
do the work of one, so run two: one may then die.

` + environment("REDIS_URL", "PORT", "SCHEDULER_ADDR", "SWEEP_INTERVAL", "CLEAN_TTL", "SHARDS") +
		example("AFTERWRITE_SWEEP_INTERVAL=10s afterwrite scheduler")
}

// Help implements kong.HelpProvider.
func (dashboardCommand) Help() string {
	return `Shows how far Postgres is behind, and under /asynq the queues. It has no login: its address is of this machine
only unless you change that, and then a proxy with a login belongs before it.

` + environment("REDIS_URL", "PORT", "DASHBOARD_ADDR", "DASHBOARD_WRITE", "CLEAN_TTL", "SHARDS") +
		example("AFTERWRITE_DASHBOARD_WRITE=true afterwrite dashboard")
}

// Help implements kong.HelpProvider.
func (migrateCommand) Help() string {
	return `Applies the migrations that the database does not have yet. It is safe to run from several machines at once, and
to run again.

` + environment("DATABASE_URL") +
		example("afterwrite migrate --status", "afterwrite migrate")
}

// Help implements kong.HelpProvider.
func (doctorCommand) Help() string {
	return `Looks for what would lose counters, or keep afterwrite from running, and says what to do about it. It changes
nothing. The exit status is 1 when something is refused.

` + environment("REDIS_URL", "DATABASE_URL", "SHARDS") +
		example("afterwrite doctor --json")
}

// Help implements kong.HelpProvider.
func (healthcheckCommand) Help() string {
	return `Sends one GET request and waits up to 3 seconds. The exit status is 0 for an answer of 2xx, 1 otherwise.
` + example("afterwrite healthcheck http://127.0.0.1:8080/readyz")
}
