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
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	// Patience bounds the wait for Redis at the start: longer than a Redis with some GB needs to load.
	Patience   = 30 * time.Second
	redisEvery = 500 * time.Millisecond
)

// Pools bounds the connections to each server. 0: the server is not used.
type Pools struct {
	Redis, Postgres int
	// Writes means that rows are written to Postgres.
	Writes bool
	// Reads means that rows may be read from AFTERWRITE_DATABASE_READ_URL.
	Reads bool
}

// Servers are the configured Redis and Postgres.
type Servers struct {
	Config config.Config
	Log    *slog.Logger
	Redis  redis.UniversalClient // nil: not used
	Cache  *cache.Cache          // nil: Redis is not used
	Store  *store.Store          // nil: not used
	// Mappings are those of AFTERWRITE_MAPPINGS. Nil: there are none, or Postgres is not used.
	Mappings *mapping.Mappings

	tracing *tracing
}

// Connect makes the clients without contacting the servers. The caller closes the result.
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
		if s.Redis, err = cache.ConnectTLS(s.Config.RedisURL, tlsFiles(s.Config), pools.Redis); err != nil {
			return err
		}
		if err = s.tracing.instrument(s.Redis); err != nil {
			return err
		}
		s.newCache()
	}
	if pools.Postgres > 0 {
		if s.Mappings, err = ReadMappings(s.Config); err != nil {
			return err
		}
		if pools.Redis > 0 && s.Mappings.Recording() {
			s.newCache()
		}
		options := store.Options{
			Logger: s.Log, Schema: s.Config.Schema, MaxConns: pools.Postgres, Writes: pools.Writes,
			Mappings: s.Mappings, Recording: recorded(s.Config, s.Mappings) != nil, OpenDB: s.tracing.openDB(),
		}
		if pools.Reads {
			options.ReadURL = s.Config.ReadURL
		}
		s.Store, err = store.Open(s.Config.DatabaseURL, options)
	}
	return err
}

func tlsFiles(c config.Config) cache.TLSFiles {
	return cache.TLSFiles{CA: c.RedisCA, Cert: c.RedisCert, Key: c.RedisKey}
}

// ReadMappings reads the file of AFTERWRITE_MAPPINGS. It returns nil if none is set. Its error has all problems of the file in one line.
func ReadMappings(c config.Config) (*mapping.Mappings, error) {
	if c.Mappings == "" {
		return nil, nil //nolint:nilnil // a nil Mappings has none
	}
	m, err := mapping.Read(c.Mappings)
	if err != nil {
		text := strings.ReplaceAll(err.Error(), ":\n", ": ")
		return nil, fmt.Errorf("AFTERWRITE_MAPPINGS: %s", strings.ReplaceAll(text, "\n", "; "))
	}
	return m, nil
}

func (s *Servers) newCache() {
	s.Cache = cache.New(s.Redis, cache.Options{
		Prefix: s.Config.Prefix(), Shards: s.Config.Shards, CleanTTL: s.Config.CleanTTL, RecordTTL: s.Config.IdempotencyTTL,
		History: recorded(s.Config, s.Mappings), MaxHistory: s.Config.MaxHistory,
	})
}

// recorded returns the function that says which counters have a history. Nil: none.
func recorded(c config.Config, mappings *mapping.Mappings) func(counter.Key) bool {
	patterns, _ := counter.ParsePatterns(c.History) // FromMap has checked them
	switch mapped := mappings.Recording(); {
	case mapped && len(patterns) == 0:
		return mappings.Recorded
	case mapped:
		return func(key counter.Key) bool { return patterns.Match(key) || mappings.Recorded(key) }
	case len(patterns) == 0:
		return nil
	}
	return patterns.Match
}

// historyDigest returns the digest of AFTERWRITE_HISTORY.
func historyDigest(c config.Config) string {
	patterns, _ := counter.ParsePatterns(c.History) // FromMap has checked them
	return patterns.Digest()
}

// Close closes the connections. It ignores errors, because the connections are no longer used.
func (s *Servers) Close() {
	if s.Store != nil {
		_ = s.Store.Close()
	}
	if s.Redis != nil {
		_ = s.Redis.Close()
	}
}

// Settle prepares a command: it calls ChooseShards, and returns an error if Redis does not answer or its counters were stored with other
// settings, under which their keys would not be found.
func (s *Servers) Settle(ctx context.Context) error {
	if err := s.AwaitRedis(ctx, 0); err != nil {
		return err
	}
	if err := s.ChooseShards(ctx); err != nil {
		return err
	}
	return s.Cache.CheckMeta(ctx)
}

// ChooseShards sets Config.Shards to the number that Redis was used with, unless a number is configured.
func (s *Servers) ChooseShards(ctx context.Context) error {
	shards, err := cache.ChooseShards(ctx, s.Redis, s.Config.Prefix(), s.Config.Shards, s.Config.ShardsSet)
	if err == nil {
		s.Config.Shards = shards
		s.newCache()
	}
	return err
}

// Checks returns the checks of these servers.
func (s *Servers) Checks() Checks {
	c := Checks{
		Redis: s.Redis, Cache: s.Cache, Mappings: s.Mappings, Durability: s.Config.Durability, WaitReplicas: s.Config.WaitReplicas,
		Failover: failoverOf(s.Config.RedisURL),
	}
	if s.Store != nil {
		c.Postgres = s.Store
	}
	return c
}

// AwaitRedis returns when Redis serves counters. It logs once that it waits. It returns an error after patience, or at once if Redis
// answers with a permanent error.
func (s *Servers) AwaitRedis(ctx context.Context, patience time.Duration) error {
	deadline, name := time.Now().Add(patience), config.Redact(s.Config.RedisURL)
	for logged := false; ; {
		err := s.Cache.Ping(ctx)
		switch {
		case err == nil:
			if logged {
				s.Log.Info("redis answers")
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case cache.IsTrustError(err):
			return fmt.Errorf("redis at %s has a certificate that is not trusted (%w): set AFTERWRITE_REDIS_CA to the CA's certificate",
				name, err)
		case denied(err):
			return fmt.Errorf("redis at %s gives its user too few permissions (%w): `afterwrite doctor` prints those that it needs",
				name, err)
		case rejects(err):
			return fmt.Errorf("redis at %s rejects the connection (%w): correct REDIS_URL", name, err)
		case time.Now().After(deadline):
			return fmt.Errorf("redis at %s does not answer (%w): start it, or correct REDIS_URL", name, err)
		case !logged:
			logged = true
			s.Log.Warn("waiting for redis", "for_at_most", patience, "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(redisEvery):
		}
	}
}

// temporary are the error prefixes of a Redis that is not ready yet.
var temporary = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "ERR max number of clients"}

// rejects reports whether Redis answered with a permanent error, such as a wrong password or an unknown database.
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

// redisLog logs the messages of the Redis client's pool at debug level, since they repeat the errors of commands.
type redisLog struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
