package cache_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// trips counts the round trips of a client that ask for the time or read a sorted set: others greet Redis at a connect.
type trips struct{ n atomic.Int64 }

func (t *trips) count(cmds ...redis.Cmder) {
	if slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Name() == "time" || strings.HasPrefix(c.Name(), "z") }) {
		t.n.Add(1)
	}
}

func (t *trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (t *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		t.count(cmd)
		return next(ctx, cmd)
	}
}

func (t *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		t.count(cmds...)
		return next(ctx, cmds)
	}
}

func TestDueKeysAreListedOldestFirstInOneRoundTrip(t *testing.T) {
	t.Parallel()
	b := setup(t)
	dirty := "{aw:00}:dirty"
	now, err := b.cache.Now(t.Context())
	require.NoError(t, err)
	const dead = 1 << 52
	require.NoError(t, b.redis.ZAdd(t.Context(), dirty,
		redisZ("young", float64(now)), redisZ("oldest", 1), redisZ("old", 2),
		redisZ("waits for a retry", float64(now+time.Hour.Milliseconds())), redisZ("dead", dead),
	).Err())
	var seen trips
	b.redis.AddHook(&seen)

	due, err := b.cache.Due(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"oldest", "old", "young"}, due)
	require.Equal(t, int64(1), seen.n.Load())

	due, err = b.cache.Due(t.Context(), 0, 2)
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"oldest", "old"}, due)
	due, err = b.cache.Due(t.Context(), 1, 2)
	require.NoError(t, err)
	require.Empty(t, due)
	due, err = b.cache.Due(t.Context(), 0, 0)
	require.NoError(t, err)
	require.Empty(t, due)
}
