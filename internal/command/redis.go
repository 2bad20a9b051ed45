package command

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
)

const (
	// redisPatience is how long a process waits for Redis at its start: longer than a Redis of some GB takes to load.
	redisPatience = 30 * time.Second
	redisEvery    = 500 * time.Millisecond
)

// awaitRedis returns when Redis serves counters. It says once that it waits, and gives up after patience, or at once when Redis
// answers that it does not want us.
func awaitRedis(ctx context.Context, c *cache.Cache, url string, patience time.Duration, log *slog.Logger) error {
	deadline := time.Now().Add(patience)
	for said := false; ; {
		err := c.Ping(ctx)
		switch {
		case err == nil:
			if said {
				log.Info("redis answers")
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case refusesUs(err):
			return fmt.Errorf("redis at %s does not let us in (%w): correct REDIS_URL", config.Redact(url), err)
		case time.Now().After(deadline):
			return fmt.Errorf("redis at %s does not answer (%w): start it, or correct REDIS_URL", config.Redact(url), err)
		case !said:
			said = true
			log.Warn("waiting for redis", "for_at_most", patience, "error", err)
		}
		if !sleep(ctx, redisEvery) {
			return ctx.Err()
		}
	}
}

// passing are the answers of a Redis that is there but not ready yet.
var passing = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "ERR max number of clients"}

// refusesUs reports that Redis answered with an error that waiting does not change: a wrong password, a database that
// does not exist.
func refusesUs(err error) bool {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return false
	}
	for _, prefix := range passing {
		if strings.HasPrefix(answer.Error(), prefix) {
			return false
		}
	}
	return true
}

// sleep reports whether d has passed; false means that ctx was done first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// redisLog takes the messages of the Redis client's pool. They say, once for each attempt, what the errors of the
// commands say anyway.
type redisLog struct{ log *slog.Logger }

// Printf implements the client's logger.
func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
