package command

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/convert"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/up"
	"github.com/afterwrite/afterwrite/worker"
)

type upCommand struct{}

// Run implements the command.
func (upCommand) Run(w *world) error {
	c, log, err := settings(w, "up")
	if err != nil {
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

// migrateAll brings Postgres and Redis up to date, and takes over the number of shards that Redis has.
func migrateAll(ctx context.Context, c *config.Config, log *slog.Logger) error {
	if err := store.MigrateURL(ctx, c.DatabaseURL); err != nil {
		return err
	}
	client, err := cache.Connect(c.RedisURL, 4)
	if err != nil {
		return err
	}
	defer closeQuietly(client)
	_, err = convert.Run(ctx, convert.Options{Redis: client, Shards: c.Shards, Logger: log, Report: logProgress(log)})
	if err == nil {
		c.Shards, err = cache.ChooseShards(ctx, client, c.Shards, c.ShardsSet)
	}
	return err
}

// untilHangup also ends ctx when the terminal is closed (unless nohup is to prevent that), and lets writes to a reader that
// has gone fail instead of ending the process: either would leave the other processes behind, or stop them out of order.
func untilHangup(ctx context.Context) (context.Context, context.CancelFunc) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	return signal.NotifyContext(ctx, syscall.SIGHUP)
}

// drain flushes what is dirty now with a worker of its own, which runs no tasks.
func drain(ctx context.Context, c config.Config, log *slog.Logger) (rows, left int64, err error) {
	redis, err := cache.Connect(c.RedisURL, workerPlan.redisConns(c))
	if err != nil {
		return 0, 0, err
	}
	defer closeQuietly(redis)
	postgres, err := store.Open(c.DatabaseURL, store.Options{Logger: log, MaxConns: workerPlan.postgresConns(c)})
	if err != nil {
		return 0, 0, err
	}
	defer closeQuietly(postgres)

	work := worker.New(worker.Options{
		Config: c, Redis: redis, Store: postgres, Registerer: prometheus.NewRegistry(), Logger: log,
		Cache: cache.New(redis, cache.Options{Shards: c.Shards, CleanTTL: c.CleanTTL}),
	})
	return work.DrainAll(ctx, "up")
}
