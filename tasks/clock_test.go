package tasks_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/tasks"
)

// elsewhere is a Redis whose clock is off. The scripts that it runs see the right time.
type elsewhere struct {
	redis.UniversalClient

	off   time.Duration
	asked int
	fails error
}

func (e *elsewhere) Time(ctx context.Context) *redis.TimeCmd {
	e.asked++
	cmd := redis.NewTimeCmd(ctx)
	cmd.SetVal(time.Now().Add(e.off))
	cmd.SetErr(e.fails)
	return cmd
}

// score returns the score of the only member of a sorted set, as a time, minus now.
func score(t *testing.T, client redis.UniversalClient, key string) time.Duration {
	t.Helper()
	found, err := client.ZRangeWithScores(t.Context(), key, 0, -1).Result()
	require.NoError(t, err)
	require.Len(t, found, 1, key)
	return time.Until(time.Unix(int64(found[0].Score), 0)).Round(5 * time.Second)
}

func TestTasksHaveRedisTime(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{2 * time.Hour, -2 * time.Hour, 200 * time.Millisecond} {
		b := setup(t)
		there := &elsewhere{UniversalClient: b.redis, off: off}
		sender := tasks.NewSender(there, "")
		_, err := sender.EnqueueContext(t.Context(), tasks.Flush("a", 3))
		require.NoError(t, err)
		_, err = sender.EnqueueContext(t.Context(), tasks.Retry("a", 5, time.Minute))
		require.NoError(t, err)
		want := off.Round(time.Minute)
		require.Equal(t, want, score(t, b.redis, "asynq:{aw-flush}:g:03"))
		require.Equal(t, want+time.Minute, score(t, b.redis, "asynq:{aw-retry}:scheduled"))
		require.Equal(t, 1, there.asked, "once in 30 s")
	}
}

func TestServersHaveRedisTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const off = -2 * time.Hour
	there := tasks.OnRedisTime(&elsewhere{UniversalClient: b.redis, off: off})
	now := float64(time.Now().Unix())
	for key, add := range map[string]func(context.Context, string, ...redis.Z) *redis.IntCmd{"alive": there.ZAdd, "lease": there.ZAddXX} {
		require.NoError(t, b.redis.ZAdd(t.Context(), key, redis.Z{Score: 1, Member: "a"}).Err())
		require.NoError(t, add(t.Context(), key, redis.Z{Score: now, Member: "a"}).Err())
		require.Equal(t, off, score(t, b.redis, key))
	}
}

func TestOnlyTimesAreShifted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	there := tasks.OnRedisTime(&elsewhere{UniversalClient: b.redis, off: time.Hour})
	now := time.Now()
	got, err := there.Eval(t.Context(), "return ARGV", nil,
		int64(1000), int64(1<<62), "text", 7*24*60*60, []byte("bytes"), int64(-1), now.Unix(), now.UnixNano()).StringSlice()
	require.NoError(t, err)
	require.Equal(t, []string{"1000", "4611686018427387904", "text", "604800", "bytes", "-1"}, got[:6])
	for i, unit := range []time.Duration{time.Second, time.Nanosecond} {
		n, err := strconv.ParseInt(got[6+i], 10, 64)
		require.NoError(t, err)
		require.WithinDuration(t, now.Add(time.Hour), time.Unix(0, n*int64(unit)), 2*time.Second)
	}
}

// A Redis that does not tell its time gets this machine's.
func TestTasksAreSentWithoutRedisTime(t *testing.T) {
	t.Parallel()
	b := setup(t)
	there := &elsewhere{UniversalClient: b.redis, off: time.Hour, fails: context.DeadlineExceeded}
	sender := tasks.NewSender(there, "")
	for _, key := range []string{"a", "b"} {
		_, err := sender.EnqueueContext(t.Context(), asynq.NewTask("x", nil, asynq.TaskID(key), asynq.Queue("q"), asynq.ProcessIn(time.Minute)))
		require.NoError(t, err)
	}
	require.Equal(t, 1, there.asked, "not for each task")
}
