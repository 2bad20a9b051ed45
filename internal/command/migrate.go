package command

import (
	"fmt"

	"github.com/afterwrite/afterwrite/internal/store"
)

type migrateCommand struct {
	Status bool `help:"Only show how many migrations are pending."`
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
		pending, err := postgres.PendingMigrations(w.ctx)
		if err != nil {
			return err
		}
		if pending > 0 {
			return say(w, "%d migrations are pending: run `afterwrite migrate`", pending)
		}
		return say(w, "the schema is up to date")
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
	return say(w, "the schema is up to date")
}

// say writes a line of a command's result.
func say(w *world, format string, args ...any) error {
	_, err := fmt.Fprintf(w.stdout, format+"\n", args...)
	return err
}
