package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/scheduler"
	"github.com/afterwrite/afterwrite/tasks"
)

// schedule runs a scheduler until the test ends.
func (b *testBundle) schedule(t *testing.T) {
	t.Helper()
	localtest.Run(t, func(ctx context.Context) error {
		return scheduler.Run(ctx, scheduler.Options{
			Client: b.sender, Redis: b.redis, SweepInterval: b.config.SweepInterval, CleanTTL: b.config.CleanTTL,
			Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		})
	})
}

// In an outage, one drain per shard replaces the flush tasks. No key gets lost.
func TestFlushTasksDoNotPileUpInAnOutage(t *testing.T) {
	t.Parallel()
	postgres := localtest.OwnPostgres(t, local.PostgresOptions{Fsync: true}) // the test kills it
	require.NoError(t, migrate(postgres.URL()))
	b := setupOn(t, localtest.RedisURL(t), postgres.URL(), map[string]string{"AFTERWRITE_SWEEP_INTERVAL": "3s"})
	const keys, maxTasks = 600, 64
	ops := make([]counter.Operation, keys)
	for i := range ops {
		ops[i] = set(counter.Key("k"+strconv.Itoa(i)), int64(i))
	}
	b.do(t, ops...)
	postgres.Kill()
	for _, op := range ops { // one task each, as the aggregator sends it
		task := tasks.Aggregate("", []*asynq.Task{tasks.Flush(op.Key, b.cache.Shard(op.Key))})
		_, err := b.sender.EnqueueContext(t.Context(), task, asynq.Queue(tasks.QueueFlush))
		require.NoError(t, err)
	}
	b.run(t)
	b.schedule(t)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
		require.NoError(t, err)
		return info.Size <= maxTasks, fmt.Sprintf("%d tasks wait", info.Size)
	})
	require.Equal(t, int64(keys), b.backlog(t).Dirty)

	require.NoError(t, postgres.Start(t.Context()))
	const slack = 20 * time.Second // for a slow machine
	localtest.Eventually(t, 2*b.config.SweepInterval+slack, func() (bool, string) {
		dirty := b.backlog(t).Dirty
		return dirty == 0, fmt.Sprintf("%d keys are still dirty", dirty)
	})
	b.requireRow(t, counter.Row{Key: "k599", Value: 599, Version: 1})
	for _, queue := range tasks.QueuesIn(b.redis, "").Names() {
		archived, err := b.inspector.ListArchivedTasks(queue)
		if err == nil {
			require.Empty(t, archived)
		}
	}
}

// No worker ran for a while: the sweeps of that time are queued, and each would send a drain of every shard with old keys.
func TestLateSweepsSendNothing(t *testing.T) {
	t.Parallel()
	// Long intervals, so that only sweeps would drain.
	b := setup(t, map[string]string{"AFTERWRITE_SWEEP_INTERVAL": "1h"})
	b.do(t, increment("a", 1))
	b.age(t, "a", time.Minute)
	const late = 30
	for i := range late {
		b.send(t, tasks.Sweep(time.Now().Add(-time.Duration(3+i)*time.Hour), time.Hour))
	}
	b.run(t)

	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueSweep)
		require.NoError(t, err)
		return info.Completed == late, fmt.Sprintf("%d of %d sweeps have run", info.Completed, late)
	})
	_, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
	require.ErrorContains(t, err, "does not exist", "nothing was sent")

	b.send(t, tasks.Sweep(time.Now(), time.Hour))
	b.eventuallyRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
}
