package worker_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

func (b *testBundle) hasEntry(t *testing.T, key counter.Key) bool {
	t.Helper()
	n, err := b.redis.Exists(context.Background(), b.name(key, "c:"+string(key))).Result()
	require.NoError(t, err)
	return n == 1
}

// backdate moves the last write of key's entry into the past by a duration.
func (b *testBundle) backdate(t *testing.T, key counter.Key, by time.Duration) {
	t.Helper()
	name := b.name(key, "c:"+string(key))
	fields := strings.Fields(b.redis.Get(context.Background(), name).Val()) // <value> <version> <epoch>[:<flags>] ...
	require.Greater(t, len(fields), 2)
	epoch, flags, flagged := strings.Cut(fields[2], ":")
	id, err := strconv.ParseInt(epoch, 36, 64)
	require.NoError(t, err)
	require.Positive(t, id)
	fields[2] = strconv.FormatInt(id-by.Microseconds(), 36)
	if flagged {
		fields[2] += ":" + flags
	}
	require.NoError(t, b.redis.Set(context.Background(), name, strings.Join(fields, " "), 0).Err())
}

// undone are dirty counters, each dirty for another reason.
var undone = []counter.Key{"dirty", "retrying", "dead"}

// writeUndone writes the undone counters. No worker may flush them meanwhile.
func (b *testBundle) writeUndone(t *testing.T) {
	t.Helper()
	for _, key := range undone {
		b.do(t, set(key, 7))
	}
	require.NoError(t, b.cache.SetAside(t.Context(), b.cache.Shard("retrying"), []counter.Key{"retrying"}, time.Hour))
	require.NoError(t, b.cache.Bury(t.Context(), "dead", cache.Dead{Reason: "no"}))
}

// requireUndone requires that the entries of the undone counters are unchanged.
func (b *testBundle) requireUndone(t *testing.T) {
	t.Helper()
	for _, key := range undone {
		require.Equal(t, int64(7), b.read(t, key).Value, key)
		_, found := b.row(t, key)
		require.False(t, found, key)
	}
}

func TestOnlyIdleEntriesAreEvictedAfterCleanTTL(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_CLEAN_TTL": "1h", "AFTERWRITE_SWEEP_INTERVAL": "1h"})
	b.do(t, set("idle", 1), set("almost", 1), set("recent", 1))
	b.drainAll(t)
	b.writeUndone(t)
	for _, key := range append([]counter.Key{"idle"}, undone...) {
		b.backdate(t, key, time.Hour+time.Minute)
	}
	b.backdate(t, "almost", time.Hour-time.Minute)
	b.run(t)

	b.send(t, tasks.Evict(time.Now(), time.Minute))

	localtest.Eventually(t, 10*time.Second, func() (bool, string) { return !b.hasEntry(t, "idle"), "it is not evicted" })
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueSweep)
		return err == nil && info.Completed == 1, "the eviction has not ended"
	})
	require.True(t, b.hasEntry(t, "almost"))
	require.True(t, b.hasEntry(t, "recent"))
	b.requireUndone(t)
	require.Equal(t, 1, int(count(t, b.registry, "afterwrite_evicted_entries_total")))
	require.Equal(t, counter.Counter{Key: "idle", Value: 1, Version: 1, Exists: true, Known: true, Synced: true}, b.do(t, get("idle"))[0].Counter)
}

// With more entries than a pass can go through in an interval, each place that a worker has for tasks would be taken by one.
func TestAWorkerMakesOnePassOverAllEntriesAtATime(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_CLEAN_TTL": "1h"})
	b.do(t, set("a", 1))
	b.drainAll(t)
	b.backdate(t, "a", 2*time.Hour)

	require.NoError(t, b.worker.EvictIdle(t.Context(), true))
	require.True(t, b.hasEntry(t, "a"), "another pass is under way")
	require.NoError(t, b.worker.EvictIdle(t.Context(), false))
	require.False(t, b.hasEntry(t, "a"))
}

// A Redis with noeviction is full of clean entries.
func TestRedisFullOfCleanKeysAcceptsWritesWithinSeconds(t *testing.T) {
	t.Parallel()
	b, accepted := fullOfClean(t)
	b.limitMemory(t, -64<<10)
	result := b.service.Do(t.Context(), []counter.Operation{increment("new", 1)}, noOptions)[0]
	require.Equal(t, counter.CodeCacheFull, counter.CodeOf(result.Err))
	b.run(t)

	b.requireRoomFor(t, 2000)

	b.requireUndone(t)
	require.Less(t, int(count(t, b.registry, "afterwrite_evicted_entries_total")), accepted, "no more than needed")
}

// The worker has already made a pass when Redis was nearly full, and found no idle entries.
func TestRedisThatFillsWithCleanKeysAcceptsWritesWithinSeconds(t *testing.T) {
	t.Parallel()
	b, _ := fullOfClean(t)
	b.limitMemory(t, 400<<10)
	b.run(t)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return localtest.Calls(t, b.redis)["scan"] > 0, "no eviction pass has run"
	})
	require.Zero(t, count(t, b.registry, "afterwrite_evicted_entries_total"))

	b.requireRoomFor(t, 6000)

	b.requireUndone(t)
}

// fullOfClean returns a bundle whose Redis holds some thousand clean entries and a few dirty ones.
func fullOfClean(t *testing.T) (b *testBundle, accepted int) {
	t.Helper()
	b = setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL(), localtest.PostgresURL(t, migrate),
		map[string]string{"AFTERWRITE_SWEEP_INTERVAL": "1h"})
	require.Equal(t, "noeviction", b.redis.ConfigGet(t.Context(), "maxmemory-policy").Val()["maxmemory-policy"])
	b.patient(t)
	accepted = b.fill(t, 3<<20)
	_, left := b.drainAll(t)
	require.Zero(t, left)
	require.NoError(t, b.redis.ConfigSet(t.Context(), "maxmemory", "0").Err())
	b.writeUndone(t)
	return b, accepted
}

// requireRoomFor writes new counters and requires that none is refused for long.
func (b *testBundle) requireRoomFor(t *testing.T, counters int) {
	t.Helper()
	const within = 8 * time.Second
	began, refused, last := time.Now(), 0, time.Duration(0)
	for i := range counters { // each becomes dirty and stays so
		key := counter.Key(fmt.Sprintf("more-%d", i))
		localtest.Eventually(t, within, func() (bool, string) {
			err := b.service.Do(t.Context(), []counter.Operation{increment(key, 1)}, noOptions)[0].Err
			if err != nil {
				refused++
				last = time.Since(began)
			}
			return err == nil, fmt.Sprint(err)
		})
	}
	t.Logf("%d writes were refused, the last after %s; evicted %.0f", refused, last,
		count(t, b.registry, "afterwrite_evicted_entries_total"))
	for i := range counters {
		require.Equal(t, int64(1), b.read(t, counter.Key(fmt.Sprintf("more-%d", i))).Value)
	}
}
