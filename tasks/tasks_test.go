package tasks_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

func TestMain(m *testing.M) { localtest.Main(m) }

type testBundle struct {
	client    *asynq.Client
	inspector *asynq.Inspector
	redis     *redis.Client
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	r := localtest.Redis(t)
	return &testBundle{
		client: asynq.NewClientFromRedisClient(r), inspector: asynq.NewInspectorFromRedisClient(r), redis: r,
	}
}

// grouped returns the number of flush tasks that wait for their aggregation.
func (b *testBundle) grouped(t *testing.T) int {
	t.Helper()
	groups, err := b.inspector.Groups(tasks.QueueFlush)
	require.NoError(t, err)
	sum := 0
	for _, g := range groups {
		sum += g.Size
	}
	return sum
}

func TestDuplicatesCollapse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := time.Now()
	for range 3 {
		for _, task := range []*asynq.Task{
			tasks.Flush("a", 3), tasks.Flush("b", 3), tasks.Drain(7, 0), tasks.DrainMore(7, "drain:07:more", time.Minute),
			tasks.SweptDrain(7, 1), tasks.SweptDrain(7, 2), tasks.Retry("a", 5, time.Minute),
			tasks.Sweep(now, time.Hour), tasks.Purge(now, time.Hour), tasks.Evict(now, time.Hour),
			tasks.DrainNow(7), tasks.DrainDue(7, "drain:07:due", time.Minute),
		} {
			require.NoError(t, tasks.Send(t.Context(), b.client, task))
		}
	}
	flush, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
	require.NoError(t, err)
	require.Equal(t, 2, b.grouped(t))
	require.Equal(t, 4, flush.Pending)
	require.Equal(t, 2, flush.Scheduled)
	sweep, err := b.inspector.GetQueueInfo(tasks.QueueSweep)
	require.NoError(t, err)
	require.Equal(t, 3, sweep.Pending)
	retry, err := b.inspector.GetQueueInfo(tasks.QueueRetry)
	require.NoError(t, err)
	require.Equal(t, 1, retry.Scheduled)
	groups, err := b.inspector.Groups(tasks.QueueFlush)
	require.NoError(t, err)
	require.Equal(t, "03", groups[0].Group)
}

func TestDrainsOfAShardAlternateBetweenTwoIDs(t *testing.T) {
	t.Parallel()
	const one, other = "drain:07", "drain:07:more"
	require.Equal(t, []string{other}, tasks.MoreIDs(7, one))
	require.Equal(t, []string{one}, tasks.MoreIDs(7, other))
	require.Equal(t, []string{one, other}, tasks.MoreIDs(7, "drain:07:0"))
	require.Equal(t, []string{"drain:07:due:more"}, tasks.DueIDs(7, "drain:07:due"))
	require.Equal(t, []string{"drain:07:due"}, tasks.DueIDs(7, "drain:07:due:more"))
	require.Equal(t, []string{"drain:08:due", "drain:08:due:more"}, tasks.DueIDs(8, "drain:08"))
}

// Now: flush the open epoch at any age: a caller waits, or deferred keys are due.
func TestDrainPayloads(t *testing.T) {
	t.Parallel()
	for task, want := range map[*asynq.Task]tasks.Shard{
		tasks.Drain(7, time.Minute):                           {Shard: 7},
		tasks.DrainMore(7, "drain:07:more", 0):                {Shard: 7},
		tasks.DrainNow(7):                                     {Shard: 7, Now: true},
		tasks.DrainDue(7, "drain:07:due", time.Minute):        {Shard: 7, Now: true},
		tasks.SweptDrain(7, 1):                                {Shard: 7, Swept: true},
		asynq.NewTask(tasks.TypeDrain, []byte(`{"shard":7}`)): {Shard: 7}, // from an older version
	} {
		got, err := tasks.DecodeShard(task.Payload(), 64)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// An eviction may scan tens of millions of entries, which takes longer than the time limit of other tasks.
func TestEvictionHasMoreTimeThanOtherTasks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := time.Now()
	timeout := func(task *asynq.Task) time.Duration {
		info, err := b.client.EnqueueContext(t.Context(), task)
		require.NoError(t, err)
		require.Equal(t, tasks.QueueSweep, info.Queue)
		require.Equal(t, 2*time.Minute, info.Retention, "for schedulers whose clock is slow")
		return info.Timeout
	}
	require.Equal(t, time.Minute, timeout(tasks.Sweep(now, time.Minute)))
	require.Equal(t, 30*time.Minute, timeout(tasks.Purge(now, time.Minute)))
	require.Equal(t, 30*time.Minute, timeout(tasks.Evict(now, time.Minute)))
	tick, err := tasks.DecodeTick(tasks.Evict(now, time.Minute).Payload())
	require.NoError(t, err)
	require.Equal(t, tasks.Tick{Bucket: tasks.Bucket(now, time.Minute), IntervalMS: 60_000}, tick)
}

// A worker that crashes soon after each start may run a sweep or two, but none of the drains that the sweeps send.
func TestSweptDrainsOfAShardDoNotPileUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := time.Now()
	for i := range 100 {
		bucket := tasks.Bucket(now.Add(time.Duration(i)*5*time.Second), 5*time.Second)
		require.NoError(t, tasks.Send(t.Context(), b.client, tasks.SweptDrain(7, bucket)))
	}
	info, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
	require.NoError(t, err)
	require.Equal(t, 2, info.Size)
	require.NoError(t, tasks.Send(t.Context(), b.client, tasks.Drain(7, 0)))
	info, err = b.inspector.GetQueueInfo(tasks.QueueFlush)
	require.NoError(t, err)
	require.Equal(t, 3, info.Size, "swept drains and other drains must not use the same IDs")
}

func TestTickIsStaleThreeIntervalsAfterItsBucketBegan(t *testing.T) {
	t.Parallel()
	const interval = 10 * time.Second
	start := time.UnixMilli(1_700_000_000_000)
	tick, err := tasks.DecodeTick(tasks.Sweep(start, interval).Payload())
	require.NoError(t, err)
	require.False(t, tick.Stale(start))
	require.False(t, tick.Stale(start.Add(-time.Hour)), "a scheduler whose clock is fast")
	require.False(t, tick.Stale(start.Add(3*interval-time.Millisecond)))
	require.True(t, tick.Stale(start.Add(3*interval)))
	require.False(t, tasks.Tick{Bucket: 1}.Stale(start), "a tick without an interval is never stale")
}

func TestSchedulersAgreeOnABucket(t *testing.T) {
	t.Parallel()
	start := time.UnixMilli(1_700_000_000_000)
	require.Equal(t, tasks.Bucket(start, 5*time.Second), tasks.Bucket(start.Add(4999*time.Millisecond), 5*time.Second))
	require.Equal(t, tasks.Bucket(start, 5*time.Second)+1, tasks.Bucket(start.Add(5*time.Second), 5*time.Second))
}

func TestAggregateKeepsEveryReadableKey(t *testing.T) {
	t.Parallel()
	merged := tasks.Aggregate("03", []*asynq.Task{
		tasks.Flush("a", 3), asynq.NewTask(tasks.TypeFlush, []byte("not json")), tasks.Flush(`"<é/🙂>"`, 3),
	})
	require.Equal(t, tasks.TypeFlush, merged.Type())
	keys, err := tasks.DecodeKeys(merged.Payload())
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"a", `"<é/🙂>"`}, keys)
}

func TestUnreadablePayloads(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "{", `{"keys":[""]}`, `{"keys":["a\n"]}`, `{"keys":"a"}`, `{"keys":["` + strings.Repeat("x", 256) + `"]}`} {
		_, err := tasks.DecodeKeys([]byte(bad))
		require.Error(t, err, "%q", bad)
	}
	for _, bad := range []string{"", `{"shard":64}`, `{"shard":-1}`, `{"shard":"7"}`} {
		_, err := tasks.DecodeShard([]byte(bad), 64)
		require.Error(t, err, "%q", bad)
	}
	_, err := tasks.DecodeTick([]byte(`{"bucket":"x"}`))
	require.Error(t, err)
}

func FuzzDecodePayloads(f *testing.F) {
	f.Add([]byte(`{"keys":["a"]}`))
	f.Add([]byte(`{"shard":7,"swept":true}`))
	f.Add([]byte(`{"bucket":1}`))
	f.Add([]byte(`{"keys":[null,1]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if keys, err := tasks.DecodeKeys(payload); err == nil {
			for _, k := range keys {
				_, err := counter.ParseKey(string(k))
				require.NoError(t, err)
			}
		}
		if shard, err := tasks.DecodeShard(payload, 64); err == nil {
			require.Less(t, int(shard.Shard), 64)
		}
		_, _ = tasks.DecodeTick(payload)
	})
}
