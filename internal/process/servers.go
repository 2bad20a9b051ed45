package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	// Patience is how long to wait for Redis at the start: longer than a Redis of some GB takes to load.
	Patience   = 30 * time.Second
	redisEvery = 500 * time.Millisecond
)

// Pools bound the connections to each server. 0: that server is not used.
type Pools struct {
	Redis, Postgres int
	// Writes says that rows are written to Postgres.
	Writes bool
}

// Servers are the Redis and the Postgres that the configuration names.
type Servers struct {
	Config config.Config
	Log    *slog.Logger
	Redis  redis.UniversalClient // nil: not used
	Cache  *cache.Cache          // of Redis
	Store  *store.Store          // nil: not used

	tracing *tracing
}

// Connect makes the clients. It asks the servers nothing: they may be away. Close them.
func Connect(c config.Config, log *slog.Logger, pools Pools) (*Servers, error) {
	s := &Servers{Config: c, Log: log}
	if err := s.connect(pools); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Servers) connect(pools Pools) (err error) {
	var noRedis, noPostgres error
	if pools.Redis > 0 {
		noRedis = s.Config.RequireRedis()
	}
	if pools.Postgres > 0 {
		noPostgres = s.Config.RequirePostgres()
	}
	if err = errors.Join(noRedis, noPostgres); err != nil {
		return err
	}
	if pools.Redis > 0 {
		if s.Redis, err = cache.Connect(s.Config.RedisURL, pools.Redis); err != nil {
			return err
		}
		if err = s.tracing.instrument(s.Redis); err != nil {
			return err
		}
		s.newCache()
	}
	if pools.Postgres > 0 {
		s.Store, err = store.Open(s.Config.DatabaseURL, store.Options{
			Logger: s.Log, Schema: s.Config.Schema, MaxConns: pools.Postgres, Writes: pools.Writes, OpenDB: s.tracing.openDB(),
		})
	}
	return err
}

func (s *Servers) newCache() {
	s.Cache = cache.New(s.Redis, cache.Options{
		Prefix: s.Config.Prefix(), Shards: s.Config.Shards, CleanTTL: s.Config.CleanTTL, RecordTTL: s.Config.IdempotencyTTL,
	})
}

// Close ends the connections. Nothing is sent on them any more, so their errors have no effect.
func (s *Servers) Close() {
	if s.Store != nil {
		_ = s.Store.Close()
	}
	if s.Redis != nil {
		_ = s.Redis.Close()
	}
}

// Settle takes over the number of shards of a Redis that holds counters, where none is configured. It does not wait for a Redis
// that does not answer, and refuses one whose counters were stored with other settings: the command would look for them in the
// wrong places.
func (s *Servers) Settle(ctx context.Context) error {
	if err := s.AwaitRedis(ctx, 0); err != nil {
		return err
	}
	if err := s.ChooseShards(ctx); err != nil {
		return err
	}
	return s.Cache.CheckMeta(ctx)
}

// ChooseShards sets Config.Shards to the number of a Redis that holds counters, where none is configured.
func (s *Servers) ChooseShards(ctx context.Context) error {
	shards, err := cache.ChooseShards(ctx, s.Redis, s.Config.Prefix(), s.Config.Shards, s.Config.ShardsSet)
	if err == nil {
		s.Config.Shards = shards
		s.newCache()
	}
	return err
}

// Checks examine these servers.
func (s *Servers) Checks() Checks {
	c := Checks{Redis: s.Redis, Cache: s.Cache}
	if s.Store != nil {
		c.Postgres = s.Store
	}
	return c
}

// AwaitRedis returns when Redis serves counters. It logs once that it waits. It gives up after patience, or at once when Redis
// answers with an error that waiting does not change.
func (s *Servers) AwaitRedis(ctx context.Context, patience time.Duration) error {
	deadline, name := time.Now().Add(patience), config.Redact(s.Config.RedisURL)
	for said := false; ; {
		err := s.Cache.Ping(ctx)
		switch {
		case err == nil:
			if said {
				s.Log.Info("redis answers")
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case rejects(err):
			return fmt.Errorf("redis at %s rejects the connection (%w): correct REDIS_URL", name, err)
		case time.Now().After(deadline):
			return fmt.Errorf("redis at %s does not answer (%w): start it, or correct REDIS_URL", name, err)
		case !said:
			said = true
			s.Log.Warn("waiting for redis", "for_at_most", patience, "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(redisEvery):
		}
	}
}

// temporary are the errors of a Redis that is not ready yet.
var temporary = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "ERR max number of clients"}

// rejects reports that Redis answered with an error that waiting does not change: a wrong password, or a database that
// does not exist.
func rejects(err error) bool {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	for _, prefix := range temporary {
		if strings.HasPrefix(answer.Error(), prefix) {
			return false
		}
	}
	return true
}

// redisLog takes the messages of the Redis client's pool. They repeat, for each attempt, the errors of the commands.
type redisLog struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
