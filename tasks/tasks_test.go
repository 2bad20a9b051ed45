package tasks_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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

// grouped is how many flush tasks wait for their aggregation.
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
			tasks.Flush("a", 3), tasks.Flush("b", 3), tasks.Drain(7, 0), tasks.DrainMore(7, "drain:07", time.Minute),
			tasks.SweptDrain(7, 1), tasks.SweptDrain(7, 2), tasks.Retry("a", 5, time.Minute),
			tasks.Sweep(now, time.Hour), tasks.Purge(now, time.Hour), tasks.Evict(now, time.Hour),
			tasks.DrainNow(7), tasks.DrainDue(7, "drain:07", time.Minute),
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

func TestTheTwoDrainsOfAShardTakeTurns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := func(task *asynq.Task) string {
		info, err := b.client.EnqueueContext(t.Context(), task)
		require.NoError(t, err)
		return info.ID
	}
	require.Equal(t, "drain:07:more", id(tasks.DrainMore(7, "drain:07", 0)))
	require.Equal(t, "drain:07", id(tasks.DrainMore(7, "drain:07:more", 0)))
	require.Equal(t, "drain:08", id(tasks.DrainMore(8, "drain:08:12345", 0)))
	require.Equal(t, "drain:07:due:more", id(tasks.DrainDue(7, "drain:07:due", 0)))
	require.Equal(t, "drain:07:due", id(tasks.DrainDue(7, "drain:07:due:more", 0)))
	require.Equal(t, "drain:08:due", id(tasks.DrainDue(8, "drain:08", 0)))
}

// Who waits for a drain is not to wait until the epoch has gathered more. A drain that only follows others leaves it time.
func TestDrainsSayWhetherSomebodyWaits(t *testing.T) {
	t.Parallel()
	for task, want := range map[*asynq.Task]tasks.Shard{
		tasks.Drain(7, time.Minute):                           {Shard: 7},
		tasks.DrainMore(7, "drain:07", 0):                     {Shard: 7},
		tasks.DrainNow(7):                                     {Shard: 7, Now: true},
		tasks.DrainDue(7, "drain:07", time.Minute):            {Shard: 7, Now: true},
		tasks.SweptDrain(7, 1):                                {Shard: 7, Swept: true},
		asynq.NewTask(tasks.TypeDrain, []byte(`{"shard":7}`)): {Shard: 7}, // from a process of before
	} {
		got, err := tasks.DecodeShard(task.Payload(), 64)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

// A pass over tens of millions of entries takes longer than a drain may.
func TestAnEvictionHasMoreTimeThanOtherTasks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := time.Now()
	timeout := func(task *asynq.Task) time.Duration {
		info, err := b.client.EnqueueContext(t.Context(), task)
		require.NoError(t, err)
		require.Equal(t, tasks.QueueSweep, info.Queue)
		require.Equal(t, 2*time.Minute, info.Retention, "for schedulers whose clock is late")
		return info.Timeout
	}
	require.Equal(t, time.Minute, timeout(tasks.Sweep(now, time.Minute)))
	require.Equal(t, time.Minute, timeout(tasks.Purge(now, time.Minute)))
	require.Equal(t, 30*time.Minute, timeout(tasks.Evict(now, time.Minute)))
	tick, err := tasks.DecodeTick(tasks.Evict(now, time.Minute).Payload())
	require.NoError(t, err)
	require.Equal(t, tasks.Tick{Bucket: tasks.Bucket(now, time.Minute), IntervalMS: 60_000}, tick)
}

// A worker that dies at once at each start takes a sweep or two each time, and runs none of the drains that they send.
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
	require.Equal(t, 3, info.Size, "a swept drain must not hold the ID of the others, nor they its")
}

func TestTickIsStaleWhenItIsMoreThanTwoIntervalsLate(t *testing.T) {
	t.Parallel()
	const interval = 10 * time.Second
	start := time.UnixMilli(1_700_000_000_000)
	tick, err := tasks.DecodeTick(tasks.Sweep(start, interval).Payload())
	require.NoError(t, err)
	require.False(t, tick.Stale(start))
	require.False(t, tick.Stale(start.Add(-time.Hour)), "a scheduler whose clock is fast")
	require.False(t, tick.Stale(start.Add(3*interval-time.Millisecond)))
	require.True(t, tick.Stale(start.Add(3*interval)))
	require.False(t, tasks.Tick{Bucket: 1}.Stale(start), "it does not say how long its interval is")
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

func options(t *testing.T) (tasks.EnqueuerOptions, *prometheus.Registry) {
	t.Helper()
	r := prometheus.NewRegistry()
	return tasks.EnqueuerOptions{
		Shards: 4, FlushBatch: 10, FlushInterval: time.Second, Logger: slog.New(slog.DiscardHandler), Registerer: r,
	}, r
}

func TestSmallBacklogIsEnqueuedKeyByKeyAndLargeAsDrain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, _ := options(t)
	e := tasks.NewEnqueuer(b.client, o)
	for i := range 30 {
		e.Offer(t.Context(), counter.Key("k"+strconv.Itoa(i)), 2, int64(i+1)) // a batch is 10
	}
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
		if err != nil {
			return false, err.Error()
		}
		state, err := json.Marshal(info)
		return err == nil && b.grouped(t) == 10 && info.Pending == 1, string(state)
	})
	e.Close(t.Context())
}

func TestBurstOfKeysOnManyShardsIsDrainedShardByShard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, _ := options(t)
	o.Shards, o.FlushInterval = 4, 400*time.Millisecond
	e := tasks.NewEnqueuer(b.client, o)
	sent := make(map[string]time.Time)
	for i := range 2000 {
		e.Offer(t.Context(), counter.Key("k"+strconv.Itoa(i)), counter.Shard(i%4), 1)
	}
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		pending, err := b.inspector.ListPendingTasks(tasks.QueueFlush)
		if err != nil {
			return false, err.Error()
		}
		for _, p := range pending {
			if _, seen := sent[p.ID]; !seen {
				sent[p.ID] = time.Now()
			}
		}
		return len(sent) == 4, strconv.Itoa(len(sent))
	})
	require.InDelta(t, 100, b.grouped(t), 30, "the first got tasks of their own")
	var first, last time.Time
	for _, at := range sent {
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	require.Greater(t, last.Sub(first), 200*time.Millisecond, "not all at once")

	// While there are too many, none gets one.
	for i := range 1000 {
		e.Offer(t.Context(), counter.Key("more"+strconv.Itoa(i)), counter.Shard(i%4), 1)
	}
	before := b.grouped(t)
	e.Offer(t.Context(), "late", 1, 1)
	e.Close(t.Context())
	require.LessOrEqual(t, before, 300)
	_, err := b.inspector.GetTaskInfo(tasks.QueueFlush, "flush:late")
	require.ErrorIs(t, err, asynq.ErrTaskNotFound)
}

// held is a sender that waits, as one does whose Redis does not answer.
type held struct{ until chan struct{} }

func (h held) EnqueueContext(context.Context, *asynq.Task, ...asynq.Option) (*asynq.TaskInfo, error) {
	<-h.until
	return nil, errors.New("redis is away")
}

func TestEnqueuerNeverBlocksAndCountsWhatItSheds(t *testing.T) {
	t.Parallel()
	o, registry := options(t)
	h := held{until: make(chan struct{})}
	e := tasks.NewEnqueuer(h, o)
	const offered = 2000
	for i := range offered {
		e.Offer(t.Context(), counter.Key("k"+strconv.Itoa(i)), 1, 1)
	}
	families, err := registry.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	shed, err := testutil.GatherAndCount(registry, "afterwrite_enqueue_shed_total")
	require.NoError(t, err)
	require.Equal(t, 1, shed)
	for _, f := range families {
		if f.GetName() == "afterwrite_enqueue_shed_total" {
			require.GreaterOrEqual(t, f.GetMetric()[0].GetCounter().GetValue(), float64(offered-1000))
		}
	}
	close(h.until)
	e.Close(t.Context())
}

// noisy tells of each task whose ID is taken.
type noisy struct {
	*asynq.Client

	conflicts chan struct{}
}

func (n noisy) EnqueueContext(ctx context.Context, task *asynq.Task, opts ...asynq.Option) (*asynq.TaskInfo, error) {
	info, err := n.Client.EnqueueContext(ctx, task, opts...)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		n.conflicts <- struct{}{}
	}
	return info, err
}

// A drain that has committed its epoch has its ID still, and does not see what is written from then on.
func TestADrainWhoseIDWasTakenIsSentAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, _ := options(t)
	o.FlushInterval = 100 * time.Millisecond
	n := noisy{b.client, make(chan struct{}, 100)}
	require.NoError(t, tasks.Send(t.Context(), b.client, tasks.Drain(3, 0))) // the one that is nearly done
	e := tasks.NewEnqueuer(n, o)
	t.Cleanup(func() { e.Close(context.Background()) })

	e.Offer(t.Context(), "a", 3, int64(o.FlushBatch)+1)
	<-n.conflicts
	require.NoError(t, b.inspector.DeleteTask(tasks.QueueFlush, "drain:03"))
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		_, err := b.inspector.GetTaskInfo(tasks.QueueFlush, "drain:03")
		return err == nil, "nothing would flush the key but a sweep"
	})

	for len(n.conflicts) > 0 {
		<-n.conflicts
	}
	e.Offer(t.Context(), "a", 3, int64(o.FlushBatch)+1)
	for range 4 { // the first, and three more
		<-n.conflicts
	}
}

func TestCloseHandsOverWhatIsQueued(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, _ := options(t)
	e := tasks.NewEnqueuer(b.client, o)
	for i := range 50 {
		e.Offer(t.Context(), counter.Key("k"+strconv.Itoa(i)), 2, 1)
	}
	e.Close(t.Context())
	require.Equal(t, 50, b.grouped(t))
}

// hung is a sender whose Redis takes the call and never answers. begun has room for every call.
type hung struct{ begun chan struct{} }

func (h hung) EnqueueContext(ctx context.Context, _ *asynq.Task, _ ...asynq.Option) (*asynq.TaskInfo, error) {
	h.begun <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestCloseEndsWithItsContextWhateverIsStillToBeSent(t *testing.T) {
	t.Parallel()
	o, _ := options(t)
	h := hung{begun: make(chan struct{}, 100)}
	e := tasks.NewEnqueuer(h, o)
	e.Offer(t.Context(), "a", 0, 1)
	<-h.begun
	for shard := range counter.Shard(4) {
		e.Offer(t.Context(), "b", shard, 11) // more than a batch: a drain
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()

	began := time.Now()
	e.Close(ended)
	require.Less(t, time.Since(began), time.Second, "one call alone is given two seconds")
}
