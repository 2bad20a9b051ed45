package tasks_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

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

// recorded is a sender that notes what it sends, and when.
type recorded struct {
	mu     sync.Mutex
	keys   map[counter.Key]bool // that got a flush
	drains map[counter.Shard][]time.Time
}

func (r *recorded) EnqueueContext(_ context.Context, task *asynq.Task, _ ...asynq.Option) (*asynq.TaskInfo, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if keys, err := tasks.DecodeKeys(task.Payload()); task.Type() == tasks.TypeFlush && err == nil {
		r.keys[keys[0]] = true
	}
	if drain, err := tasks.DecodeShard(task.Payload(), 4); task.Type() == tasks.TypeDrain && err == nil {
		r.drains[drain.Shard] = append(r.drains[drain.Shard], time.Now())
	}
	return &asynq.TaskInfo{}, nil
}

func TestBurstOfKeysOnManyShardsIsDrainedShardByShard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // its clock stands still while the test offers keys, and sleeping takes no time
		o, _ := options(t)
		o.FlushInterval = 400 * time.Millisecond
		r := &recorded{keys: make(map[counter.Key]bool), drains: make(map[counter.Shard][]time.Time)}
		e := tasks.NewEnqueuer(r, o)
		offer := func(name string, n int) {
			for i := range n {
				e.Offer(t.Context(), counter.Key(name+strconv.Itoa(i)), counter.Shard(i%4), 1)
			}
		}
		offer("k", 2000)
		time.Sleep(o.FlushInterval - time.Millisecond)
		offer("more", 30) // fewer than the rate permits since the burst
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()

		r.mu.Lock()
		require.Len(t, r.keys, 100, "the first got tasks of their own, but none within a flush interval of the burst")
		var moments []time.Time
		for shard := range counter.Shard(4) {
			require.NotEmpty(t, r.drains[shard])
			moments = append(moments, r.drains[shard][0])
		}
		slices.SortFunc(moments, time.Time.Compare)
		for i, at := range moments[1:] {
			require.Equal(t, 100*time.Millisecond, at.Sub(moments[i]), "each shard has its own moment")
		}
		r.mu.Unlock()

		time.Sleep(o.FlushInterval)
		offer("calm", 1)
		synctest.Wait()
		e.Close(t.Context())
		require.True(t, r.keys["calm0"])
	})
}

// held is a sender that blocks, as with a Redis that does not answer.
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

// noisy reports each task whose ID is taken.
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

// A drain that has committed its epoch still holds its ID, but misses later writes.
func TestDrainWhoseIDWasTakenIsSentAgain(t *testing.T) {
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

// Asynq deletes the members of a group after it has enqueued their aggregate, which may have run by then. It holds their IDs meanwhile, and
// for minutes if the worker dies.
func TestKeyWhoseFlushIsBeingAggregatedGetsADrain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	o, _ := options(t)
	require.NoError(t, tasks.Send(t.Context(), b.client, tasks.Flush("a", 3)))
	group := "asynq:{" + tasks.QueueFlush + "}:g:03"
	require.NoError(t, b.redis.Rename(t.Context(), group, group+":aggregating").Err())
	e := tasks.NewEnqueuer(b.client, o)
	t.Cleanup(func() { e.Close(context.Background()) })

	e.Offer(t.Context(), "a", 3, 1)

	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		info, err := b.inspector.GetTaskInfo(tasks.QueueFlush, "drain:03")
		return err == nil && info.State == asynq.TaskStateScheduled, "nothing would flush the key but a sweep"
	})
}

func TestCloseSendsQueuedHints(t *testing.T) {
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

// hung is a sender whose Redis never answers. begun has room for every call.
type hung struct{ begun chan struct{} }

func (h hung) EnqueueContext(ctx context.Context, _ *asynq.Task, _ ...asynq.Option) (*asynq.TaskInfo, error) {
	h.begun <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestCloseEndsWithItsContext(t *testing.T) {
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

// failover is a sender to a Redis that is away at first.
type failover struct {
	away atomic.Bool
	sent chan string // the types of tasks
}

func (f *failover) EnqueueContext(_ context.Context, task *asynq.Task, _ ...asynq.Option) (*asynq.TaskInfo, error) {
	if f.away.Load() {
		return nil, errors.New("redis fails over")
	}
	f.sent <- task.Type()
	return &asynq.TaskInfo{}, nil
}

// Their keys would wait for a sweep.
func TestHintsThatCouldNotBeSentBecomeADrain(t *testing.T) {
	t.Parallel()
	o, registry := options(t)
	o.FlushInterval = 100 * time.Millisecond
	f := &failover{sent: make(chan string, 10)}
	f.away.Store(true)
	e := tasks.NewEnqueuer(f, o)
	e.Offer(t.Context(), "a", 2, 1)
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		failed := counterOf(t, registry, "afterwrite_enqueue_failed_total")
		return failed >= 3, strconv.Itoa(int(failed)) // the hint, and drains
	})

	f.away.Store(false)
	select {
	case sent := <-f.sent:
		require.Equal(t, tasks.TypeDrain, sent)
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was sent")
	}
	e.Close(t.Context())
	require.Empty(t, f.sent, "one drain is enough")
}

func counterOf(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}
