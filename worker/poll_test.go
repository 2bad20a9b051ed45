package worker

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	pendingFlushes = "asynq:{" + tasks.QueueFlush + "}:pending"
	pendingSweeps  = "asynq:{" + tasks.QueueSweep + "}:pending"
	delayedRetries = "asynq:{" + tasks.QueueRetry + "}:retry"
)

// idleClient returns a pollClient that has found no work for an hour.
func idleClient(t *testing.T) *pollClient {
	t.Helper()
	b := newPollClient(localtest.Redis(t), tasks.QueuesIn(nil, ""))
	b.lastWork = time.Now().Add(-time.Hour)
	return b
}

// asks reports whether a poll of key reaches Redis, if there was no work for without, and the last poll was ago before.
func (b *pollClient) asks(key string, without, ago time.Duration) bool {
	now := time.Now()
	b.lastWork, b.polls[key].asked = now.Add(-without), now.Add(-ago)
	_, due := b.due(b.polls[key], now)
	return due
}

func TestPollsBecomeRarerWithoutWork(t *testing.T) {
	t.Parallel()
	b := newPollClient(nil, tasks.QueuesIn(nil, ""))
	for _, c := range []struct {
		key          string
		without, ago time.Duration
		want         bool
	}{
		{pendingFlushes, 0, 0, true},
		{pendingFlushes, time.Second, 0, true},
		{pendingFlushes, 2 * time.Second, 99 * time.Millisecond, false},
		{pendingFlushes, 2 * time.Second, 100 * time.Millisecond, true},
		{pendingFlushes, time.Hour, 249 * time.Millisecond, false},
		{pendingFlushes, time.Hour, 250 * time.Millisecond, true},
		{delayedRetries, time.Second, 0, true},
		{delayedRetries, 5 * time.Second, 250 * time.Millisecond, true}, // as often as Asynq polls
		{delayedRetries, time.Hour, 899 * time.Millisecond, false},
		{delayedRetries, time.Hour, 900 * time.Millisecond, true},
	} {
		require.Equal(t, c.want, b.asks(c.key, c.without, c.ago), "%+v", c)
	}
}

// A script with other keys is run each time, whatever it returns.
func TestOnlyPollsAreSpared(t *testing.T) {
	t.Parallel()
	b := idleClient(t)
	const group = "asynq:{" + tasks.QueueFlush + "}:g:07"
	script := redis.NewScript(`redis.call('INCR', 'runs'); return tonumber(ARGV[1])`)
	want := 0
	for _, keys := range [][]string{
		nil,
		{pendingFlushes},
		{delayedRetries},
		{group, group + ":set"},
		{pendingFlushes, delayedRetries},
		{delayedRetries, pendingFlushes}, // the pending tasks of another queue
		{tasks.PausedKey(tasks.QueueFlush), pendingFlushes},
	} {
		for range 3 {
			b.lastWork = time.Now().Add(-time.Hour)
			require.NoError(t, script.Run(t.Context(), b, keys, 0).Err())
			require.ErrorIs(t, script.Run(t.Context(), b, keys, "nothing").Err(), redis.Nil)
			want += 2
		}
	}
	runs, err := b.Get(t.Context(), "runs").Int()
	require.NoError(t, err)
	require.Equal(t, want, runs)
}

// polled starts Asynq's server on an idle pollClient, and returns a channel of the tasks that it runs.
func polled(t *testing.T, b *pollClient) <-chan string {
	t.Helper()
	ran := make(chan string, 10)
	server := asynq.NewServerFromRedisClient(b, asynq.Config{
		Queues: tasks.QueuesIn(nil, "").Weights(), TaskCheckInterval: taskCheckInterval, DelayedTaskCheckInterval: delayedTaskCheckInterval,
		Logger: asynqLogger{slog.New(slog.DiscardHandler)},
	})
	require.NoError(t, server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		ran <- task.Type()
		return nil
	})))
	t.Cleanup(server.Shutdown)
	return ran
}

// rest makes the server's polls idle again.
func (b *pollClient) rest() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastWork = time.Now().Add(-time.Hour)
}

func (b *pollClient) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.lastWork) < time.Minute
}

// load is what a busy machine may add to a bound of less than a second.
const load = 2 * time.Second

func TestTaskAfterALongIdleTimeStartsWithinTheBound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		task  *asynq.Task
		bound time.Duration
		busy  bool
	}{
		"a drain":         {tasks.DrainNow(3), maxDequeuePause + 2*taskCheckInterval, true},
		"a delayed drain": {tasks.Drain(3, time.Second), time.Second + maxForwardPause + 2*delayedTaskCheckInterval, true},
		"a retry":         {tasks.Retry("a", 5, time.Second), time.Second + maxForwardPause + 2*delayedTaskCheckInterval, true},
		"a sweep":         {tasks.Sweep(time.Now(), time.Hour), maxDequeuePause + 2*taskCheckInterval, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := idleClient(t)
			ran := polled(t, b)
			localtest.Eventually(t, 10*time.Second, func() (bool, string) { // Redis has the server's scripts
				n, err := b.Exists(t.Context(), "asynq:servers").Result()
				return n == 1, fmt.Sprint(n, err)
			})
			b.rest()
			began := time.Now()
			require.NoError(t, tasks.Send(t.Context(), asynq.NewClientFromRedisClient(b.UniversalClient), c.task))
			require.Equal(t, c.task.Type(), <-ran)
			require.Less(t, time.Since(began), c.bound+load)
			require.Equal(t, c.busy, b.busy())
		})
	}
}

// Tasks that the server itself enqueues, as its aggregator does, start at once.
func TestAggregatedTaskMakesTheWorkerBusy(t *testing.T) {
	t.Parallel()
	b := idleClient(t)
	require.NoError(t, tasks.Send(t.Context(), asynq.NewClientFromRedisClient(b), tasks.DrainNow(3)))
	require.True(t, b.busy())
}

// An idle worker must not mistake a Redis that does not answer for empty queues.
func TestFailureIsNotMistakenForAnEmptyQueue(t *testing.T) {
	t.Parallel()
	b := idleClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.EvalSha(ctx, "none", []string{pendingSweeps, tasks.PausedKey(tasks.QueueSweep)}).Err()
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, b.busy())
}
