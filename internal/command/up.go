package command

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/up"
	"github.com/afterwrite/afterwrite/worker"
)

type upCommand struct{}

// Run implements the command.
func (upCommand) Run(w *world) error {
	c, log, err := w.environment().Settings("up")
	if err != nil {
		return err
	}
	if err := checkAPIAddress(c, c.Addr(c.APIAddr)); err != nil {
		return err // before it starts servers
	}
	if _, err := process.ReadMappings(c); err != nil {
		return err
	}
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's own file: %w", err)
	}
	ctx, stop := untilHangup(w.ctx)
	defer stop()
	return up.Run(ctx, up.Options{
		Config:     c,
		Executable: executable,
		Environ:    w.environ,
		Out:        w.stdout,
		Migrate:    func(ctx context.Context, c *config.Config) error { return migrateAll(ctx, c, log) },
		Drain: func(ctx context.Context, c config.Config) (rows, left int64, err error) {
			return drain(ctx, c, log)
		},
	})
}

// migrateAll brings Postgres and Redis up to date, and sets c.Shards to the number of shards of Redis.
func migrateAll(ctx context.Context, c *config.Config, log *slog.Logger) error {
	if _, err := store.Migrate(ctx, c.DatabaseURL, c.Schema); err != nil {
		return err
	}
	if c.Top {
		if _, err := store.CreateTopIndex(ctx, c.DatabaseURL, c.Schema); err != nil {
			return err
		}
	}
	s, err := process.Connect(*c, log, process.Pools{Redis: 4})
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Convert(ctx, process.LogProgress(log))
	if err == nil {
		err = s.ChooseShards(ctx)
	}
	c.Shards = s.Config.Shards
	return err
}

// untilHangup also ends ctx when the terminal is closed, except under nohup. It makes writes to a closed pipe fail instead of ending the
// process. Otherwise either signal would leave the other processes running, or stop them out of order.
func untilHangup(ctx context.Context) (context.Context, context.CancelFunc) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	return signal.NotifyContext(ctx, syscall.SIGHUP)
}

// drain flushes all dirty counters with a temporary worker, which runs no tasks.
func drain(ctx context.Context, c config.Config, log *slog.Logger) (rows, left int64, err error) {
	s, err := process.Connect(c, log, workerPlan.Pools(c))
	if err != nil {
		return 0, 0, err
	}
	defer s.Close()
	work := worker.New(worker.Options{
		Config: c, Redis: s.Redis, Store: s.Store, Mappings: s.Mappings, Cache: s.Cache, Registerer: prometheus.NewRegistry(),
		Logger: log,
	})
	return work.DrainAll(ctx, "up")
}
