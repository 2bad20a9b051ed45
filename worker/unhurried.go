package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// failurePause is how long the answer of a script that failed is held back from Asynq.
const failurePause = taskCheckInterval

// unhurried is the client that Asynq's server gets. When its dequeue fails, the server tries again at once: a Redis that
// is full is asked tens of thousands of times a second, and one that is away as often as it refuses connections. So the
// bad news comes late. Only scripts are slowed down, since that is what a dequeue is; the worker's own use o.Redis itself.
type unhurried struct{ redis.UniversalClient }

// EvalSha implements redis.Scripter.
func (c unhurried) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := c.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) && !redis.HasErrorPrefix(err, "NOSCRIPT") {
		pause(ctx)
	}
	return cmd
}

func pause(ctx context.Context) {
	timer := time.NewTimer(failurePause/2 + rand.N(failurePause)) //nolint:gosec // chance, not a secret
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
