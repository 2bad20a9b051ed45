package up

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local"
)

// serverStop bounds the end of both private servers together.
const serverStop = 15 * time.Second

// maxMemory is the maxmemory of the private Redis. A million counters need about a quarter of it.
const maxMemory = "1gb"

// servers are the private Redis and Postgres.
type servers struct {
	redis    *local.Redis    // nil if REDIS_URL is set
	postgres *local.Postgres // nil if DATABASE_URL is set
	unlock   func() error
}

// newServers locks c.DataDir if a private server is needed.
func newServers(c config.Config) (*servers, error) {
	s := &servers{unlock: func() error { return nil }}
	if c.RedisURL != "" && c.DatabaseURL != "" {
		return s, nil
	}
	unlock, err := local.Lock(c.DataDir)
	if err != nil {
		return nil, err
	}
	s.unlock = unlock
	return s, nil
}

// start starts the private servers, with their data in c.DataDir, and sets their URLs in c.
func (s *servers) start(ctx context.Context, c *config.Config, say func(format string, args ...any)) (err error) {
	if c.RedisURL == "" {
		dir := filepath.Join(c.DataDir, "redis")
		say("starting a private Redis in %s", dir)
		s.redis, err = local.StartRedis(ctx, local.RedisOptions{
			Dir: dir, Socket: true, AppendOnly: true, Args: []string{"--maxmemory", maxMemory},
		})
		if err != nil {
			return err
		}
		c.RedisURL = s.redis.URL()
	}
	if c.DatabaseURL == "" {
		dir := filepath.Join(c.DataDir, "postgres")
		say("starting a private Postgres in %s", dir)
		s.postgres, err = local.StartPostgres(ctx, local.PostgresOptions{Dir: dir, Fsync: true})
		if err != nil {
			return err
		}
		c.DatabaseURL = s.postgres.URL()
	}
	return nil
}

// redisDone returns a channel that is closed when the private Redis ends; nil if there is none.
func (s *servers) redisDone() <-chan struct{} {
	if s.redis == nil {
		return nil
	}
	return s.redis.Done()
}

// postgresDone returns a channel that is closed when the private Postgres ends; nil if there is none.
func (s *servers) postgresDone() <-chan struct{} {
	if s.postgres == nil {
		return nil
	}
	return s.postgres.Done()
}

// stop stops the private servers, Postgres first, and unlocks the folder, even if ctx is done.
func (s *servers) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverStop)
	defer cancel()

	var errs []error
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop(ctx))
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Stop(ctx))
	}
	return errors.Join(append(errs, s.unlock())...)
}
