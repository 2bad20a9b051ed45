package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/convert"
	"github.com/afterwrite/afterwrite/internal/ops"
)

// settle returns when Redis answers and has the layout of this version, and takes over the number of shards that it has, where
// none is set. A Redis of the previous version is converted, or waited for.
func (s *process) settle(ctx context.Context) error {
	probe := cache.New(s.redis, cache.Options{Shards: s.config.Shards})
	for {
		if err := awaitRedis(ctx, probe, s.config.RedisURL, redisPatience, s.log); err != nil {
			return err
		}
		err := s.upgrade(ctx)
		if err == nil {
			s.config.Shards, err = cache.ChooseShards(ctx, s.redis, s.config.Shards, s.config.ShardsSet)
		}
		if err == nil || probe.Ping(ctx) == nil || ctx.Err() != nil {
			return err
		}
		s.log.Warn("redis went away", "error", err)
	}
}

// upgrade returns when Redis needs no conversion. Meanwhile the process is healthy, but not ready.
func (s *process) upgrade(ctx context.Context) error {
	needed, err := convert.Needed(ctx, s.redis)
	if err != nil || !needed {
		return err
	}
	stop, err := s.serveNotReady(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if !s.converts {
		return convert.Await(ctx, s.redis, s.log)
	}
	_, err = convert.Run(ctx, convert.Options{
		Redis: s.redis, Shards: s.config.Shards, Logger: s.log, Report: logProgress(s.log),
	})
	return err
}

// logProgress writes a line of the log about each progress.
func logProgress(log *slog.Logger) func(convert.Progress) {
	return func(p convert.Progress) {
		message := "converting this Redis"
		if p.Done {
			message = "this Redis has layout " + cache.Layout + " now"
		}
		log.Info(message, "entries", p.Entries, "idempotency_records", p.Records, "keys", p.Keys, "shards", p.Shards)
	}
}

// serveNotReady answers on the process's address that it is not ready, until the returned function is called.
func (s *process) serveNotReady(ctx context.Context) (stop func(), err error) {
	listener, err := s.listen()
	if err != nil {
		return nil, err
	}
	notYet := func(context.Context) error {
		return errors.New("this Redis is being converted to layout " + cache.Layout)
	}
	handler := ops.Handler(ops.HandlerOptions{
		Registry: s.registry, Logger: s.log, Checks: []ops.Check{{Name: "redis", Required: true, Probe: notYet}},
		Next: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "starting: the counters are being upgraded", http.StatusServiceUnavailable)
		}),
	})
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := ops.Serve(ctx, listener, handler, s.log); err != nil {
			s.log.Warn("the address is not served while redis is being converted", "error", err)
		}
	})
	return func() {
		cancel()
		serving.Wait()
	}, nil
}

// openCache returns the counters of the Redis that the environment names, for a command that works on them at once. It does not wait
// for a Redis that does not answer, and refuses one whose counters were stored with other settings: it would look for them
// in the wrong places. It sets c.Shards.
func openCache(ctx context.Context, client redis.UniversalClient, c *config.Config, log *slog.Logger) (*cache.Cache, error) {
	err := awaitRedis(ctx, cache.New(client, cache.Options{Shards: c.Shards}), c.RedisURL, 0, log)
	if err == nil {
		c.Shards, err = cache.ChooseShards(ctx, client, c.Shards, c.ShardsSet)
	}
	if err != nil {
		return nil, err
	}
	settled := cache.New(client, cache.Options{Shards: c.Shards, CleanTTL: c.CleanTTL})
	return settled, settled.CheckMeta(ctx)
}

// migrateRedis converts the Redis that the environment names, if the previous version has written it.
func migrateRedis(w *world, c config.Config, log *slog.Logger) error {
	if c.RedisURL == "" {
		return say(w, "redis: not looked at, since REDIS_URL is not set; counters of an older version are converted when a worker starts")
	}
	client, err := cache.Connect(c.RedisURL, 4)
	if err != nil {
		return err
	}
	defer closeQuietly(client)
	if err := awaitRedis(w.ctx, cache.New(client, cache.Options{Shards: c.Shards}), c.RedisURL, redisPatience, log); err != nil {
		return err
	}
	done, err := convert.Run(w.ctx, convert.Options{
		Redis: client, Shards: c.Shards, Logger: log,
		Report: func(p convert.Progress) {
			fmt.Fprintf(w.stderr, "converting redis: %d of about %d keys\n", p.Entries+p.Records, p.Keys)
		},
	})
	if err != nil {
		return err
	}
	if done.Done {
		return say(w, "redis: converted to layout %s with %d shards: %d counters, %d idempotency records",
			cache.Layout, done.Shards, done.Entries, done.Records)
	}
	state, err := redisState(w.ctx, client)
	if err != nil {
		return err
	}
	return say(w, "redis: %s", state)
}

// redisState says in a few words what layout Redis has. The error is that it cannot be used.
func redisState(ctx context.Context, client redis.UniversalClient) (string, error) {
	layout, shards, err := cache.ReadSettings(ctx, client)
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
