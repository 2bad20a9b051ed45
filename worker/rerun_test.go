package worker_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
	"github.com/afterwrite/afterwrite/worker"
)

// heldEnd is a hook of Redis that keeps a task running after its handler has returned: Asynq's commands that would end it wait.
type heldEnd struct {
	id     string
	begun  chan struct{} // closed when the first command waits
	free   chan struct{} // closed to let the commands go on
	closed bool
}

func (h *heldEnd) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *heldEnd) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *heldEnd) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		ends := func(arg any) bool { s, is := arg.(string); return is && strings.HasSuffix(s, ":t:"+h.id) }
		active := func(arg any) bool { s, is := arg.(string); return is && strings.HasSuffix(s, ":active") }
		if strings.HasPrefix(cmd.Name(), "eval") && slices.ContainsFunc(cmd.Args(), ends) && slices.ContainsFunc(cmd.Args(), active) {
			if !h.closed { // one goroutine ends a task
				close(h.begun)
				h.closed = true
			}
			<-h.free
		}
		return next(ctx, cmd)
	}
}

// runHolding runs a worker in which the task with the ID does not end before the test does.
func (b *testBundle) runHolding(t *testing.T, id string) *heldEnd {
	t.Helper()
	client, err := cache.Connect(b.redisURL, 10)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	h := &heldEnd{id: id, begun: make(chan struct{}), free: make(chan struct{})}
	client.AddHook(h)
	w := worker.New(worker.Options{
		Config: b.config, Redis: client, Store: b.store, Registerer: prometheus.NewRegistry(),
		Cache:  cache.New(client, cache.Options{Shards: b.config.Shards, CleanTTL: b.config.CleanTTL}),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	localtest.Run(t, w.Run)
	t.Cleanup(func() { close(h.free) })
	return h
}

// A drain finds an open epoch that is too young. The ID of the next drain belongs to one that is past its work, but still counts as running.
// Without sweeps nothing else would flush the key.
func TestDrainRunsAgainIfTheNextOneIsPastItsWork(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{
		"AFTERWRITE_SHARDS": "1", "AFTERWRITE_FLUSH_INTERVAL": "3s", "AFTERWRITE_SWEEP_INTERVAL": "1m",
	})
	h := b.runHolding(t, "drain:00:more")
	b.send(t, tasks.DrainMore(0, "drain:00:more", 0))
	<-h.begun

	b.do(t, increment("a", 1))
	b.send(t, tasks.Drain(0, 0))

	b.eventuallyRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
}

func TestNextDrainIsSentUnlessATaskWillDoItsWork(t *testing.T) {
	t.Parallel()
	const one, other = "drain:00", "drain:00:more"
	for name, test := range map[string]struct {
		running, waiting []string
		own              string
		rerun            bool
		next             []string // the waiting tasks in the end
	}{
		"nothing is there":          {nil, nil, "flush", false, []string{one}},
		"one waits":                 {nil, []string{one}, "flush", false, []string{one}},
		"one runs":                  {[]string{one}, nil, "flush", false, []string{other}},
		"one runs, the other waits": {[]string{one}, []string{other}, "flush", false, []string{other}},
		"both run":                  {[]string{one, other}, nil, "flush", true, nil},
		"it is one of them":         {[]string{one}, nil, one, false, []string{other}},
		"it is one, and both run":   {[]string{one, other}, nil, one, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
			b.occupy(t, test.running)
			for _, id := range test.waiting {
				b.send(t, tasks.DrainMore(0, id, time.Minute))
			}

			rerun, err := b.worker.SendNext(t.Context(), 0, test.own, worker.Drained{Again: time.Minute})

			require.NoError(t, err)
			require.Equal(t, test.rerun, rerun)
			scheduled, err := b.inspector.ListScheduledTasks(tasks.QueueFlush)
			if len(test.next) > 0 || len(test.running) > 0 {
				require.NoError(t, err)
			}
			var ids []string
			for _, s := range scheduled {
				ids = append(ids, s.ID)
			}
			require.Equal(t, test.next, ids)
		})
	}
}

// occupy makes drains of shard 0 run until the test ends.
func (b *testBundle) occupy(t *testing.T, ids []string) {
	t.Helper()
	if len(ids) == 0 {
		return
	}
	server := asynq.NewServerFromRedisClient(b.redis, asynq.Config{
		Queues: map[string]int{tasks.QueueFlush: 1}, Concurrency: len(ids), LogLevel: asynq.FatalLevel, TaskCheckInterval: 50 * time.Millisecond,
	})
	began, free := make(chan struct{}, len(ids)), make(chan struct{})
	require.NoError(t, server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		began <- struct{}{}
		<-free
		return nil
	})))
	t.Cleanup(func() {
		close(free)
		server.Shutdown()
	})
	for _, id := range ids {
		b.send(t, tasks.DrainMore(0, id, 0))
	}
	for range ids {
		<-began
	}
}
