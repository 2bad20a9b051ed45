package worker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

// impatient returns settings that make a refused row a dead letter within two seconds.
func impatient() map[string]string {
	return map[string]string{
		"AFTERWRITE_MAX_ATTEMPTS": "2", "AFTERWRITE_RETRY_BACKOFF": "10ms", "AFTERWRITE_SHARDS": "2",
	}
}

func (b *testBundle) eventuallyDead(t *testing.T, keys ...counter.Key) {
	t.Helper()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		backlog := b.backlog(t)
		return backlog.Dead == int64(len(keys)), fmt.Sprintf("%+v", backlog)
	})
	for _, key := range keys {
		dead, found, err := b.cache.DeadLetter(t.Context(), key)
		require.NoError(t, err)
		require.True(t, found, "%q is not dead", key)
		require.NotEmpty(t, dead.Reason)
		require.Equal(t, b.config.MaxAttempts, dead.Attempts)
		localtest.Eventually(t, 5*time.Second, func() (bool, string) {
			info, err := b.inspector.GetTaskInfo(tasks.QueueRetry, tasks.RetryID(key))
			if err != nil {
				return false, err.Error()
			}
			return info.State.String() == "archived" && info.LastErr != "", info.State.String() + " " + info.LastErr
		})
	}
}

func TestRefusedRowsDelayOnlyThemselves(t *testing.T) {
	t.Parallel()
	b := setup(t, impatient())
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 1000000)`)
	ops := make([]counter.Operation, 1000)
	for i := range ops {
		ops[i] = set(counter.Key("k"+strconv.Itoa(i)), int64(i))
	}
	bad := []counter.Key{"k3", "k500", "k997"}
	for _, i := range []int{3, 500, 997} {
		ops[i].Amount = 1_000_000
	}
	b.do(t, ops...)

	rows, left := b.drainAll(t)
	require.Equal(t, int64(997), rows)
	require.Equal(t, int64(3), left)

	b.run(t)
	b.eventuallyDead(t, bad...)
	require.Zero(t, b.backlog(t).Dirty)
	dead, _, err := b.cache.DeadLetter(t.Context(), "k3")
	require.NoError(t, err)
	require.Contains(t, dead.Reason, "small")

	// It still accepts writes, and no drain flushes it.
	require.Equal(t, int64(1_000_005), b.do(t, increment("k3", 5))[0].Counter.Value)
	rows, _ = b.drainAll(t)
	require.Zero(t, rows)
}

func TestCorrectedRowIsFlushedByItsRetry(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_MAX_ATTEMPTS": "50", "AFTERWRITE_RETRY_BACKOFF": "10ms"})
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 10)`)
	b.do(t, set("a", 10))
	b.drainAll(t)
	b.do(t, increment("a", -5)) // it was set aside with 10; its client corrects it
	b.run(t)
	b.eventuallyRow(t, counter.Row{Key: "a", Value: 5, Version: 2})
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		backlog := b.backlog(t)
		return backlog.Dirty == 0 && backlog.Dead == 0, fmt.Sprintf("%+v", backlog)
	})
}

// If an operator has a refused row tried before its retry is due, that must not add attempts.
func TestRowRefusedAgainBeforeItsRetryWaitsForTheRetry(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 10)`)
	retry := time.Now().Add(5 * time.Minute)
	_, err := b.sender.Enqueue(tasks.Retry("a", b.config.MaxAttempts, time.Until(retry)))
	require.NoError(t, err)
	b.do(t, set("a", 10))
	b.drainAll(t)

	inspected, err := b.cache.Inspect(t.Context(), []counter.Key{"a"})
	require.NoError(t, err)
	require.Greater(t, inspected[0].RetryAt, retry.UnixMilli())
}

// An archived retry holds its ID for ever: the next refusal of the key must still get a retry.
func TestRefusalAfterAnEarlierDeadLetterIsRetriedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, impatient())
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 10)`)
	b.run(t)
	b.do(t, set("a", 10))
	b.drainAll(t)
	b.eventuallyDead(t, "a")
	// An operator deletes afterwrite's keys, but not Asynq's.
	require.NoError(t, b.redis.Del(context.Background(), b.name("a", "dead"), b.name("a", "meta"), b.name("a", "c:a")).Err())
	b.do(t, set("a", 11))
	b.drainAll(t)
	b.eventuallyDead(t, "a")
}

func TestExceptionOfATriggerIsARefusal(t *testing.T) {
	t.Parallel()
	b := setup(t, impatient())
	b.exec(t, `CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF NEW.value = 13 THEN RAISE EXCEPTION 'unlucky' USING ERRCODE = 'ZZ001'; END IF; RETURN NEW; END $$`)
	b.exec(t, `CREATE TRIGGER no BEFORE INSERT OR UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION no()`)
	b.run(t)
	b.do(t, set("a", 12), set("b", 13), set("c", 14))
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 12, Version: 1})
	b.requireRow(t, counter.Row{Key: "c", Value: 14, Version: 1})
	b.eventuallyDead(t, "b")
}

func TestOutageUsesUpNoRetriesAndArchivesNothing(t *testing.T) {
	t.Parallel()
	postgres := localtest.OwnPostgres(t, local.PostgresOptions{Fsync: true}) // the test kills it
	require.NoError(t, migrate(postgres.URL()))
	b := setupOn(t, localtest.RedisURL(t), postgres.URL(), map[string]string{"AFTERWRITE_MAX_ATTEMPTS": "1", "AFTERWRITE_RETRY_BACKOFF": "10ms"})
	b.run(t)
	b.do(t, set("a", 1), set("b", 1))
	b.drainAll(t)
	postgres.Kill()

	b.do(t, increment("a", 1)) // warm
	b.send(t, tasks.Flush("a", b.cache.Shard("a")))
	b.send(t, tasks.Drain(b.cache.Shard("b"), 0))
	b.send(t, tasks.Retry("b", b.config.MaxAttempts, 0))
	b.do(t, increment("b", 1))
	results := b.service.Do(t.Context(), []counter.Operation{increment("cold", 1)}, noOptions)
	require.NoError(t, results[0].Err, "a dead Postgres never fails a write")
	require.False(t, results[0].Counter.Known)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		waiting, err := b.inspector.ListRetryTasks(tasks.QueueFlush)
		if err != nil {
			return false, err.Error()
		}
		for _, task := range waiting {
			require.Zero(t, task.Retried, "an outage was counted against %s", task.ID)
		}
		return len(waiting) >= 1, "none waits" // the drain: the flush of the same shard is merged into it
	})

	require.NoError(t, postgres.Start(t.Context()))
	b.eventuallyRowAfterOutage(t, counter.Row{Key: "a", Value: 2, Version: 2})
	b.eventuallyRowAfterOutage(t, counter.Row{Key: "b", Value: 2, Version: 2})
	b.send(t, tasks.Drain(b.cache.Shard("cold"), 0))
	b.eventuallyRowAfterOutage(t, counter.Row{Key: "cold", Value: 1, Version: 1})
	for _, queue := range tasks.QueuesIn(b.redis, "").Names() {
		archived, err := b.inspector.ListArchivedTasks(queue)
		if err == nil {
			require.Empty(t, archived)
		}
	}
}

// Otherwise a minute without Postgres would leave thousands of small flushes in front of the drains.
func TestFlushesThatFailInAnOutageBecomeOneDrainOfTheShard(t *testing.T) {
	t.Parallel()
	postgres := localtest.OwnPostgres(t, local.PostgresOptions{Fsync: true}) // the test kills it
	require.NoError(t, migrate(postgres.URL()))
	b := setupOn(t, localtest.RedisURL(t), postgres.URL(), map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.run(t)
	postgres.Kill()

	keys := []counter.Key{"a", "b", "c", "d", "e"}
	flushTasks := func() (left int, drains int) {
		for _, list := range []func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
			b.inspector.ListPendingTasks, b.inspector.ListActiveTasks, b.inspector.ListRetryTasks, b.inspector.ListScheduledTasks,
		} {
			found, err := list(tasks.QueueFlush)
			require.NoError(t, err)
			for _, task := range found {
				if task.Type == tasks.TypeDrain {
					drains++
				} else {
					left++
				}
			}
		}
		return left, drains
	}
	for _, key := range keys {
		b.do(t, set(key, 7))
		_, err := b.sender.EnqueueContext(t.Context(), tasks.Aggregate("0", []*asynq.Task{tasks.Flush(key, 0)}), asynq.Queue(tasks.QueueFlush))
		require.NoError(t, err)
	}
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		left, drains := flushTasks()
		return left == 0 && drains == 1, fmt.Sprintf("%d flushes and %d drains wait", left, drains)
	})

	require.NoError(t, postgres.Start(t.Context()))
	for _, key := range keys {
		b.eventuallyRowAfterOutage(t, counter.Row{Key: key, Value: 7, Version: 1})
	}
}

// eventuallyRowAfterOutage is eventuallyRow for a Postgres that may be starting.
func (b *testBundle) eventuallyRowAfterOutage(t *testing.T, want counter.Row) {
	t.Helper()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		var row counter.Row
		row.Key = want.Key
		err := b.db.QueryRow(`SELECT value, version FROM counters WHERE key = $1`, string(want.Key)).Scan(&row.Value, &row.Version)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return false, err.Error()
		}
		return row == want, "the row is still " + show(row)
	})
}
