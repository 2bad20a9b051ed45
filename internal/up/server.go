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

// maxMemory of the private Redis: a million counters take about a quarter of it.
const maxMemory = "1gb"

// servers are Redis and Postgres: private ones, or those that the environment names, which are left alone.
type servers struct {
	redis    *local.Redis    // nil: REDIS_URL
	postgres *local.Postgres // nil: DATABASE_URL
	unlock   func() error
}

// newServers makes this process the only user of c.DataDir, unless it needs none.
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

// start starts what the environment does not name, with its data in c.DataDir, and sets its URL in c.
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

// redisDone is closed when the private Redis has ended; never for one that is not ours.
func (s *servers) redisDone() <-chan struct{} {
	if s.redis == nil {
		return nil
	}
	return s.redis.Done()
}

// postgresDone is redisDone for Postgres.
func (s *servers) postgresDone() <-chan struct{} {
	if s.postgres == nil {
		return nil
	}
	return s.postgres.Done()
}

// stop ends the private servers, Postgres first, and gives the folder back. It does so even when ctx is done.
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
