package writepath_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// countedLimit is a limit with its own client, which counts the commands that it sends.
type countedLimit struct {
	*writepath.Limit

	commands atomic.Int64
	counts   atomic.Int64
	failing  atomic.Bool
}

func newCountedLimit(t *testing.T, url string, most int64) *countedLimit {
	t.Helper()
	client, err := cache.Connect(url, 10)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	l := new(countedLimit)
	client.AddHook(l)
	l.Limit = writepath.NewLimit(cache.New(client, cache.Options{Shards: 4, CleanTTL: time.Hour}), most)
	t.Cleanup(l.Close)
	return l
}

func (*countedLimit) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*countedLimit) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (l *countedLimit) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, commands []redis.Cmder) error {
		switch commands[0].Name() {
		case "time":
			l.counts.Add(1)
			l.commands.Add(int64(len(commands)))
		case "scard":
			l.commands.Add(int64(len(commands)))
		default:
			return next(ctx, commands) // of a new connection
		}
		if l.failing.Load() {
			for _, c := range commands {
				c.SetErr(errors.New("no connection"))
			}
			return errors.New("no connection")
		}
		return next(ctx, commands)
	}
}

// eventuallyCounts blocks until n counts have begun.
func (l *countedLimit) eventuallyCounts(t *testing.T, n int64) {
	t.Helper()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { return l.counts.Load() >= n, "nothing is counted" })
}

func TestLimitFollowsTheDirtyKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	limit := writepath.NewLimit(b.cache, 2)
	t.Cleanup(limit.Close)
	require.True(t, limit.MayDirty())
	b.do(t, op(counter.Increment, "a", 1), op(counter.Increment, "b", 1))
	localtest.Eventually(t, 5*time.Second, func() (bool, string) { return !limit.MayDirty(), "still allowed" })
}

func TestLimitCountsOnlyWhileItIsUsed(t *testing.T) {
	t.Parallel()
	url := localtest.RedisURL(t)
	asked, idle := newCountedLimit(t, url, 1000), newCountedLimit(t, url, 1000)
	idle.eventuallyCounts(t, 1)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		require.True(t, asked.MayDirty())
		return asked.counts.Load() >= 4, "nothing is counted"
	})
	require.Equal(t, int64(1), idle.counts.Load(), "it was counted once, at its start")
	require.Equal(t, int64(3), idle.commands.Load(), "while nothing is dirty")
	require.True(t, idle.MayDirty())
	idle.eventuallyCounts(t, 2)
}

// Otherwise the first write after an outage would be refused, although the backlog is gone.
func TestLimitKeepsCountingNearTheLimit(t *testing.T) {
	t.Parallel()
	url := localtest.RedisURL(t)
	b := setupWith(t, url, localtest.PostgresURL(t, migrate), waitLong)
	limit := newCountedLimit(t, url, 4)
	b.do(t, op(counter.Increment, "a", 1), op(counter.Increment, "b", 1), op(counter.Increment, "c", 1), op(counter.Increment, "d", 1))
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { return !limit.MayDirty(), "still allowed" })
	limit.eventuallyCounts(t, limit.counts.Load()+3)
	b.flush(t)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { // without calls of MayDirty
		return writepath.Counted(limit.Limit) == 0, "not counted"
	})
	require.True(t, limit.MayDirty(), "the first call")
}

func TestLimitCountsAgainAfterAnError(t *testing.T) {
	t.Parallel()
	url := localtest.RedisURL(t)
	b := setupWith(t, url, localtest.PostgresURL(t, migrate), waitLong)
	limit := newCountedLimit(t, url, 1)
	limit.eventuallyCounts(t, 1)
	limit.failing.Store(true)
	b.do(t, op(counter.Increment, "a", 1))
	require.True(t, limit.MayDirty(), "by the last count")
	limit.eventuallyCounts(t, limit.counts.Load()+2)
	limit.failing.Store(false)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { return !limit.MayDirty(), "still allowed" })
}
