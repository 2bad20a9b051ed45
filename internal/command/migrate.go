package command

import (
	"fmt"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/store"
)

type migrateCommand struct {
	Status bool `help:"Only show which migrations are applied, and since when."`
}

// Run implements the command.
func (m migrateCommand) Run(w *world) error {
	c, log, err := settings(w, "migrate")
	if err != nil {
		return err
	}
	if err := c.RequirePostgres(); err != nil {
		return err
	}
	if m.Status {
		postgres, err := store.Open(c.DatabaseURL, store.Options{Logger: log, MaxConns: 1})
		if err != nil {
			return err
		}
		defer closeQuietly(postgres)
		if err := sayMigrations(w, postgres); err != nil {
			return err
		}
		return sayRedis(w, c)
	}

	applied, err := store.Migrate(w.ctx, c.DatabaseURL)
	for _, name := range applied {
		if err := say(w, "applied %s", name); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if err := say(w, "the schema is up to date"); err != nil {
		return err
	}
	return migrateRedis(w, c, log)
}

// sayRedis says whether Redis has to be converted.
func sayRedis(w *world, c config.Config) error {
	if c.RedisURL == "" {
		return say(w, "redis: not looked at, since REDIS_URL is not set")
	}
	client, err := cache.Connect(c.RedisURL, 1)
	if err != nil {
		return err
	}
	defer closeQuietly(client)
	state, err := redisState(w.ctx, client)
	if err != nil {
		state = err.Error()
	}
	return say(w, "redis: %s", state)
}

// sayMigrations lists the migrations, and says what to do about those that are pending.
func sayMigrations(w *world, postgres *store.Store) error {
	all, err := postgres.Migrations(w.ctx)
	if err != nil {
		return err
	}
	pending := 0
	for _, m := range all {
		state := "applied " + timestamp(m.Applied)
		if m.Applied.IsZero() {
			pending++
			state = "pending"
		}
		if err := say(w, "%s  %s", m.Name, state); err != nil {
			return err
		}
	}
	if pending > 0 {
		return say(w, "%d of %d migrations are pending: run `afterwrite migrate`", pending, len(all))
	}
	return say(w, "the schema is up to date")
}

// say writes a line of a command's result.
func say(w *world, format string, args ...any) error {
	_, err := fmt.Fprintf(w.stdout, format+"\n", args...)
	return err
}
