package worker_test

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
)

func show(row counter.Row) string { return fmt.Sprintf("%+v", row) }

func TestDrainWritesStateNotHistory(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, increment("a", 2), increment("a", 3), set("b", 9), del("b"), set("c", math.MinInt64))

	rows, left := b.drainAll(t)

	require.Equal(t, int64(3), rows)
	require.Zero(t, left)
	b.requireRow(t, counter.Row{Key: "a", Value: 5, Version: 2})
	b.requireRow(t, counter.Row{Key: "b", Version: 2, Deleted: true})
	b.requireRow(t, counter.Row{Key: "c", Value: math.MinInt64, Version: 1})
	require.True(t, b.do(t, get("a"))[0].Counter.Synced)
	rows, _ = b.drainAll(t)
	require.Zero(t, rows, "nothing is dirty any more")
}

func TestDrainFlushesBatchAfterBatch(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_FLUSH_BATCH": "7", "AFTERWRITE_SHARDS": "2"})
	ops := make([]counter.Operation, 100)
	for i := range ops {
		ops[i] = set(counter.Key("k"+strconv.Itoa(i)), int64(i))
	}
	b.do(t, ops...)
	rows, left := b.drainAll(t)
	require.Equal(t, int64(100), rows)
	require.Zero(t, left)
}

// The worker dies after Postgres's commit and before the epoch's commit: the next worker repeats the flush.
func TestFlushThatDiedBeforeItsCommitCanBeRepeated(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, increment("a", 5))
	b.seal(t, b.cache.Shard("a"), "test")
	b.upsert(t, b.read(t, "a")) // and no commit
	require.Equal(t, int64(1), b.backlog(t).Dirty)

	rows, left := b.drainAll(t)
	require.Zero(t, rows, "the row existed already")
	require.Zero(t, left)
	b.do(t, increment("a", 1))
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 6, Version: 2})
}

// A worker is suspended between its read and its upsert, while others flush newer states.
func TestLateFlushDoesNotSetTheRowBack(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, increment("a", 1))
	late := b.read(t, "a")
	b.do(t, increment("a", 1))
	b.drainAll(t)

	ahead := b.upsert(t, late)
	require.Len(t, ahead, 1)
	require.Equal(t, int64(2), ahead[0].Version)
	b.requireRow(t, counter.Row{Key: "a", Value: 2, Version: 2})
}

func TestWritesWhilePostgresIsAwayAreAddedToItsValue(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, set("a", 100), set("b", 100), set("c", 100))
	b.drainAll(t)
	require.NoError(t, b.redis.FlushDB(context.Background()).Err())

	blind := []counter.Operation{increment("a", 5), increment("a", 6), set("b", 7), increment("b", 1), del("c"), increment("new", 3)}
	for _, r := range b.service.Do(t.Context(), blind, writepath.Options{Minimal: true}) {
		require.NoError(t, r.Err)
		require.False(t, r.Counter.Known)
	}
	b.drainAll(t)

	b.requireRow(t, counter.Row{Key: "a", Value: 111, Version: 3})
	b.requireRow(t, counter.Row{Key: "b", Value: 8, Version: 3})
	b.requireRow(t, counter.Row{Key: "c", Version: 2, Deleted: true})
	b.requireRow(t, counter.Row{Key: "new", Value: 3, Version: 1})
	require.Zero(t, b.backlog(t).Dirty)
	require.Equal(t, int64(111), b.do(t, get("a"))[0].Counter.Value)
}

func TestReadOfABlindlyWrittenCounterHydratesIt(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, set("a", 100))
	b.drainAll(t)
	require.NoError(t, b.redis.FlushDB(context.Background()).Err())
	b.service.Do(t.Context(), []counter.Operation{increment("a", 5)}, writepath.Options{Minimal: true})

	got := b.do(t, get("a"))[0].Counter
	require.Equal(t, counter.Counter{Key: "a", Value: 105, Version: 2, Exists: true, Known: true}, got)
}

func TestCleanCounterSurvivesTheLossOfItsEntry(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, set("a", 41), set("gone", 1), del("gone"))
	b.drainAll(t)
	require.NoError(t, b.redis.FlushDB(context.Background()).Err())

	require.Equal(t, counter.Counter{Key: "a", Value: 41, Version: 1, Exists: true, Known: true, Synced: true},
		b.do(t, get("a"))[0].Counter)
	require.False(t, b.do(t, get("gone"))[0].Counter.Exists)
	require.Equal(t, int64(42), b.do(t, increment("a", 1))[0].Counter.Value)
	gone := b.do(t, increment("gone", 1))[0].Counter
	require.Equal(t, int64(1), gone.Value)
	require.Equal(t, int64(3), gone.Version, "its version continues")
	require.Empty(t, b.do(t, get("never"))[0].Counter.Version)
	require.False(t, b.do(t, del("never"))[0].Counter.Exists)
	require.Equal(t, int64(2), b.backlog(t).Dirty, "deleting an absent counter changes nothing")
}

func TestFlushTasksOfAShardBecomeOneFlush(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	keys := make([]counter.Key, 50)
	for i := range keys {
		keys[i] = counter.Key("k" + strconv.Itoa(i))
		b.do(t, set(keys[i], int64(i)))
		b.send(t, tasks.Flush(keys[i], 0))
	}
	b.run(t)
	for i, key := range keys {
		b.eventuallyRow(t, counter.Row{Key: key, Value: int64(i), Version: 1})
	}
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
		if err != nil {
			return false, err.Error()
		}
		return info.Processed > 0 && info.Processed <= 5 && info.Size == 0, fmt.Sprintf("%d processed", info.Processed)
	})
}

// Tasks from other versions or enqueued by hand are hints, too.
func TestKeyWithTwoTasksIsFlushedWhateverTheirIDs(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	keys := []counter.Key{"a/b", "x/../../pending_tasks:delete_all", "b?x", "~2F"}
	for i, key := range keys {
		b.do(t, set(key, int64(i)))
		b.send(t, tasks.Flush(key, 0))
		_, err := asynq.NewClientFromRedisClient(b.redis).EnqueueContext(t.Context(), tasks.Flush(key, 0), asynq.TaskID("flush:"+string(key)))
		require.NoError(t, err)
	}
	b.run(t)
	for i, key := range keys {
		b.eventuallyRow(t, counter.Row{Key: key, Value: int64(i), Version: 1})
	}
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
		if err != nil {
			return false, err.Error()
		}
		return info.Processed > 0 && info.Failed == 0 && info.Size == 0, fmt.Sprintf("%+v", info)
	})
}

func TestKeyWrittenDuringItsFlushIsFlushedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.run(t)
	b.do(t, increment("a", 1))
	release := b.holdUpserts(t)
	b.send(t, tasks.Flush("a", b.cache.Shard("a")))
	b.eventuallyWaiting(t)
	b.do(t, increment("a", 1)) // dirty already, so the write path sends no hint: the worker must continue
	release()
	b.eventuallyRow(t, counter.Row{Key: "a", Value: 2, Version: 2})
}

// A key that becomes dirty during a drain of its shard may find the ID of the drain task taken, and must still be flushed.
func TestKeyThatBecomesDirtyDuringADrainIsFlushed(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.run(t)
	b.do(t, increment("a", 1), increment("b", 1))
	release := b.holdUpserts(t)
	b.send(t, tasks.Drain(0, 0))
	b.eventuallyWaiting(t)
	b.service.Do(t.Context(), []counter.Operation{increment("late", 1)}, writepath.Options{Minimal: true})
	b.send(t, tasks.Drain(0, 0)) // its ID is the running drain's
	release()
	b.eventuallyRow(t, counter.Row{Key: "late", Value: 1, Version: 1})
}

// The worker that ran the drain died, and its task holds the ID for minutes. The sweep's drain has its own ID.
func TestSweepFindsKeysWhoseTasksWereLostOrAreStuck(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, increment("a", 1), increment("b", 1))
	shard := b.cache.Shard("a")
	b.send(t, tasks.Drain(shard, 0))
	require.NoError(t, b.redis.LPop(context.Background(), "asynq:{aw-flush}:pending").Err()) // its ID stays taken
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		return b.backlog(t).Oldest > 2*time.Second, "not overdue yet"
	})
	b.run(t)
	b.send(t, tasks.Sweep(time.Now(), time.Second))
	b.eventuallyRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
	b.eventuallyRow(t, counter.Row{Key: "b", Value: 1, Version: 1})
}

func TestSweepLeavesYoungKeysToTheirTasks(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_FLUSH_INTERVAL": "1h"})
	b.run(t)
	b.do(t, increment("a", 1))
	b.send(t, tasks.Sweep(time.Now(), time.Second))
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueSweep)
		return err == nil && info.Completed == 1, "the sweep has not run"
	})
	require.Equal(t, int64(1), b.backlog(t).Dirty)
	_, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
	require.ErrorContains(t, err, "does not exist", "nothing was sent")
}

func TestPurgeRemovesOldTombstonesOnly(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_TOMBSTONE_TTL": "1h"})
	b.do(t, set("old", 1), del("old"), set("young", 1), del("young"), set("live", 1))
	b.drainAll(t)
	b.exec(t, `UPDATE counters SET deleted_at = now() - interval '2 hours' WHERE key = 'old'`)
	b.run(t)
	b.send(t, tasks.Purge(time.Now(), time.Hour))
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		_, found := b.row(t, "old")
		return !found, "it is still there"
	})
	_, found := b.row(t, "young")
	require.True(t, found)
	_, found = b.row(t, "live")
	require.True(t, found)
}

func TestUnreadableTasksAreDropped(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.run(t)
	for _, typename := range []string{tasks.TypeFlush, tasks.TypeDrain, tasks.TypeRetry, tasks.TypeSweep} {
		b.send(t, asynq.NewTask(typename, []byte("?"), asynq.Queue(tasks.QueueFlush), asynq.MaxRetry(3)))
	}
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		info, err := b.inspector.GetQueueInfo(tasks.QueueFlush)
		if err != nil {
			return false, err.Error()
		}
		return info.Processed == 4 && info.Size == 0, fmt.Sprintf("%+v", info)
	})
}

func TestDirtyKeyDeletedByHandDoesNotStayDirtyForEver(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, increment("a", 1), increment("b", 1))
	require.NoError(t, b.redis.Del(context.Background(), b.name("a", "c:a")).Err())
	_, left := b.drainAll(t)
	require.Zero(t, left)
	b.requireRow(t, counter.Row{Key: "b", Value: 1, Version: 1})
}
