package worker_test

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
	"github.com/afterwrite/afterwrite/worker"
)

// brisk returns settings under which the worker drains a key itself after 4 s.
func brisk() map[string]string {
	return map[string]string{"AFTERWRITE_SWEEP_INTERVAL": "1s", "AFTERWRITE_CLEAN_TTL": "1s"}
}

// count returns the value of a counter or gauge, or the number of observations of a histogram; 0 if there is none.
func count(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == name {
			metric := family.GetMetric()[0]
			return metric.GetCounter().GetValue() + metric.GetGauge().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return 0
}

func (b *testBundle) eventuallyClean(t *testing.T, within time.Duration) {
	t.Helper()
	localtest.Eventually(t, within, func() (bool, string) {
		backlog := b.backlog(t)
		return backlog.Dirty == 0, fmt.Sprintf("%+v", backlog)
	})
}

// limitMemory sets Redis's maxmemory to its current use plus room bytes.
func (b *testBundle) limitMemory(t *testing.T, room int) {
	t.Helper()
	used, err := strconv.Atoi(b.redis.InfoMap(t.Context(), "memory").Item("Memory", "used_memory"))
	require.NoError(t, err)
	require.NoError(t, b.redis.ConfigSet(t.Context(), "maxmemory", strconv.Itoa(used+room)).Err())
}

// patient makes the write path wait for Postgres without a practical limit, so that the base of every counter is known.
func (b *testBundle) patient(t *testing.T) {
	t.Helper()
	b.open(t, writepath.Parts{BaseTimeout: time.Minute})
}

// fill writes new counters until Redis is full, and returns how many it accepted.
func (b *testBundle) fill(t *testing.T, room int) (accepted int) {
	t.Helper()
	b.limitMemory(t, room)
	const batch, maxBatches = 500, 1000
	for n := range maxBatches {
		ops := make([]counter.Operation, batch)
		for i := range ops {
			ops[i] = set(counter.Key(fmt.Sprintf("counter-%d", n*batch+i)), 1)
		}
		for _, r := range b.service.Do(t.Context(), ops, noOptions) {
			if r.Err != nil {
				return accepted
			}
			accepted++
		}
	}
	t.Fatalf("not full after %d batches", maxBatches)
	return accepted
}

// Asynq cannot dequeue a task while Redis is full, so no sweep and no drain runs. Flushing needs no memory and makes room again.
func TestFullRedisIsDrained(t *testing.T) {
	t.Parallel()
	b := setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL(), localtest.PostgresURL(t, migrate), brisk())
	b.patient(t)

	accepted := b.fill(t, 4<<20)
	t.Logf("full after %d counters", accepted)
	b.limitMemory(t, -512<<10) // exactly at the limit some commands succeed whenever a buffer is freed
	require.Positive(t, b.backlog(t).Dirty)
	b.run(t) // not earlier: it might flush as fast as counters are written
	b.schedule(t)

	b.eventuallyClean(t, 60*time.Second)
	require.Positive(t, count(t, b.registry, "afterwrite_self_drains_total"))
	var rows int
	require.NoError(t, b.db.QueryRow(`SELECT count(*) FROM counters WHERE key LIKE 'counter-%'`).Scan(&rows))
	require.GreaterOrEqual(t, rows, accepted)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		result := b.service.Do(t.Context(), []counter.Operation{increment("again", 1)}, noOptions)[0]
		return result.Err == nil, fmt.Sprint(result.Err)
	})
}

func TestDirtyKeysAreFlushedWithoutASchedulerAndWithoutAsynqsKeys(t *testing.T) {
	t.Parallel()
	b := setup(t, brisk())
	var log localtest.Buffer
	registry := prometheus.NewRegistry()
	b.worker = worker.New(worker.Options{
		Config: b.config, Redis: b.redis, Cache: b.cache, Store: b.store, Registerer: registry,
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	ops := make([]counter.Operation, 200) // in most of the shards
	for i := range ops {
		ops[i] = set(counter.Key("k"+strconv.Itoa(i)), 1)
	}
	b.do(t, ops...)
	for _, op := range ops {
		b.send(t, tasks.Flush(op.Key, b.cache.Shard(op.Key)))
	}
	lost, err := b.redis.Keys(t.Context(), "asynq:*").Result()
	require.NoError(t, err)
	require.NoError(t, b.redis.Del(t.Context(), lost...).Err())
	b.run(t)

	b.eventuallyClean(t, 20*time.Second)
	b.requireRow(t, counter.Row{Key: "k199", Value: 1, Version: 1})
	drains := count(t, registry, "afterwrite_self_drains_total")
	require.Greater(t, drains, 10.)
	require.LessOrEqual(t, drains, float64(b.config.Shards))
	require.Equal(t, 1, strings.Count(log.String(), "tasks do not arrive"), "once, not for each shard")
}

func TestWorkerLeavesKeysToWorkingSweeps(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SWEEP_INTERVAL": "3s"})
	b.run(t)
	b.schedule(t)
	for i := range 3 { // about 10 s: three checks
		key := counter.Key("k" + strconv.Itoa(i))
		b.do(t, increment(key, 1)) // the bundle sends no tasks, so a sweep must find it
		b.eventuallyRow(t, counter.Row{Key: key, Value: 1, Version: 1})
	}
	require.Zero(t, count(t, b.registry, "afterwrite_self_drains_total"))
}

// A worker's own drains must not delay its shutdown.
func TestWorkerStopsDuringItsOwnDrain(t *testing.T) {
	t.Parallel()
	b := setup(t, brisk())
	b.do(t, increment("a", 1))
	b.age(t, "a", time.Minute)
	release := b.holdUpserts(t)
	defer release()
	stop := b.run(t)
	b.eventuallyWaiting(t)

	ended := time.Now()
	stop()
	require.Less(t, time.Since(ended), 5*time.Second)
	require.Equal(t, int64(1), b.backlog(t).Dirty)
}
