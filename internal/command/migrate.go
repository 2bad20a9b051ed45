package command

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/convert"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
)

type migrateCommand struct {
	Status bool `help:"Only show which migrations are applied, and since when."`
}

// Run implements the command.
func (m migrateCommand) Run(w *world) error {
	s, err := w.connect("migrate", process.Pools{Postgres: 1})
	if err != nil {
		return err
	}
	defer s.Close()
	if m.Status {
		if err := sayMigrations(w, s.Store); err != nil {
			return err
		}
		return m.redis(w, s)
	}

	applied, err := store.Migrate(w.ctx, s.Config.DatabaseURL, s.Config.Schema)
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
	if err := sayTopIndex(w, s); err != nil {
		return err
	}
	return m.redis(w, s)
}

// sayTopIndex creates the index for /v1/top if AFTERWRITE_TOP is set. If it is not, it says how to drop an index that is left.
func sayTopIndex(w *world, s *process.Servers) error {
	if s.Config.Top {
		created, err := store.CreateTopIndex(w.ctx, s.Config.DatabaseURL, s.Config.Schema)
		if err != nil || !created {
			return err
		}
		return say(w, "created the index %s for /v1/top", store.TopIndex)
	}
	state, err := s.Store.TopIndexState(w.ctx)
	if err != nil || state == store.IndexMissing {
		return err
	}
	return say(w, "the index %s makes flushes slower, and only AFTERWRITE_TOP=true uses it: set that, or run %s", store.TopIndex,
		store.DropTopIndex(s.Config.Schema))
}

// redis converts the Redis that the environment names, if the previous version has written it; with --status it only says
// whether it has to be converted.
func (m migrateCommand) redis(w *world, s *process.Servers) error {
	switch {
	case s.Config.RedisURL == "" && m.Status:
		return say(w, "redis: not looked at, since REDIS_URL is not set")
	case s.Config.RedisURL == "":
		return say(w, "redis: not looked at, since REDIS_URL is not set; counters of an older version are converted when a worker starts")
	}
	r, err := process.Connect(s.Config, s.Log, process.Pools{Redis: 4})
	if err != nil {
		return err
	}
	defer r.Close()
	if !m.Status {
		done, err := convertRedis(w, r)
		if err != nil {
			return err
		}
		if done.Done {
			return say(w, "redis: converted to layout %s with %d shards: %d counters, %d idempotency records",
				cache.Layout, done.Shards, done.Entries, done.Records)
		}
	}
	state, err := redisState(w.ctx, r.Redis, r.Config.Prefix())
	if err != nil && m.Status {
		return say(w, "redis: %s", err)
	}
	if err != nil {
		return err
	}
	return say(w, "redis: %s", state)
}

// convertRedis waits for Redis, and reports the progress of its conversion on stderr.
func convertRedis(w *world, s *process.Servers) (convert.Progress, error) {
	if err := s.AwaitRedis(w.ctx, process.Patience); err != nil {
		return convert.Progress{}, err
	}
	return s.Convert(w.ctx, func(p convert.Progress) {
		fmt.Fprintf(w.stderr, "converting redis: %d of about %d keys\n", p.Entries+p.Records, p.Keys)
	})
}

// redisState says in a few words what layout Redis has. The error says that it cannot be used.
func redisState(ctx context.Context, client redis.UniversalClient, prefix string) (string, error) {
	layout, shards, err := cache.ReadSettings(ctx, client, prefix)
	switch {
	case err != nil:
		return "", err
	case layout == "":
		return "not used by afterwrite yet", nil
	case layout == cache.Layout:
		return fmt.Sprintf("layout %s, %d shards: up to date", layout, shards), nil
	default:
		return "", cache.NewLayoutError(layout)
	}
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
