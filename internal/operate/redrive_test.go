package operate_test

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/tasks"
)

func TestRedriveWritesThePresentStateToPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.forbid(t)
	b.run(t)
	b.do(t, set("a", 10), set("b", 20))
	b.drainAll(t)
	b.die(t, "a", "b")
	b.do(t, increment("a", 5)) // a dead key accepts writes
	b.allow(t)

	require.Equal(t, operate.Redriven{Keys: []counter.Key{"a"}}, b.redrive(t, "a", "a"))
	require.Equal(t, "gone", b.retryState(t, "a"))
	require.Equal(t, operate.Outcome{Clean: []counter.Key{"a"}}, b.await(t, "a"))
	b.requireRow(t, counter.Row{Key: "a", Value: 15, Version: 2})
	b.requireNotDead(t, "a")
	require.Equal(t, "20", strconv.FormatInt(b.get(t, "b").Redis.Value, 10), "the other key is still dead")
	require.Equal(t, "archived", b.retryState(t, "b"))
}

func TestRedrivenKeyThatIsRefusedDiesAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.forbid(t)
	b.run(t)
	b.do(t, set("a", 10))
	b.drainAll(t)
	b.die(t, "a")
	since := b.get(t, "a").Since

	b.redrive(t, "a")
	require.Equal(t, operate.Outcome{Dead: []counter.Key{"a"}}, b.await(t, "a"))
	letter := b.get(t, "a")
	require.True(t, letter.Since.After(since))
	require.Equal(t, 2, letter.Attempts, "the count of attempts starts again")
	b.die(t, "a")

	b.allow(t)
	redriven, err := b.service.RedriveAll(t.Context())
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"a"}, redriven)
	require.Equal(t, operate.Outcome{Clean: []counter.Key{"a"}}, b.await(t, "a"))
	require.Equal(t, "gone", b.retryState(t, "a"))
}

func TestRedriveIgnoresKeysThatAreNotDead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("dead", 1), set("dirty", 1))
	b.bury(t, "dead")
	require.Equal(t, operate.Redriven{
		Keys: []counter.Key{"dead"}, NotDead: []counter.Key{"cold", "dirty"},
	}, b.redrive(t, "dirty", "dead", "cold"))
	require.Equal(t, operate.Redriven{NotDead: []counter.Key{"dead"}}, b.redrive(t, "dead"))
	redriven, err := b.service.RedriveAll(t.Context())
	require.NoError(t, err)
	require.Empty(t, redriven)

	outcome, err := b.service.Await(t.Context(), []counter.Key{"dead", "cold"}, time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, operate.Outcome{Clean: []counter.Key{"cold"}, Waiting: []counter.Key{"dead"}}, outcome, "no worker runs")
	workers, err := b.service.Workers()
	require.NoError(t, err)
	require.Zero(t, workers)
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "dead", Value: 1, Version: 1})
}

// The command dies right after its first step, before it has sent a task.
func TestSweepFindsARedriveThatSentNoTask(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 1))
	b.bury(t, "a")
	_, err := b.cache.Redrive(t.Context(), b.cache.Shard("a"), []counter.Key{"a"})
	require.NoError(t, err)
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		overdue, err := b.cache.Overdue(t.Context(), time.Millisecond)
		require.NoError(t, err)
		return slices.Equal(overdue, []counter.Shard{b.cache.Shard("a")}), "a sweep does not find the shard"
	})
}

func TestRedriveLeavesALiveRetryAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 1))
	b.bury(t, "a")
	client := asynq.NewClientFromRedisClient(b.redis)
	require.NoError(t, tasks.Send(t.Context(), client, tasks.Retry("a", 5, time.Hour)))
	b.redrive(t, "a")
	require.Equal(t, "scheduled", b.retryState(t, "a"))
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.service.Await(ctx, []counter.Key{"a"}, time.Hour)
	require.ErrorIs(t, err, context.Canceled)
}

// A redriven key is like a key that was just written: the next flush writes it, with all writes until then.
func TestRedriveJoinsTheOpenEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 1))
	shard := b.cache.Shard("a")
	b.bury(t, "a")
	b.drainAll(t) // the epoch of its write
	_, found := b.row(t, "a")
	require.False(t, found)
	b.do(t, increment("a", 1))
	epoch := func() cache.Epoch {
		e, err := b.cache.Seal(t.Context(), shard, cache.Taking{Owner: "test", Lease: time.Minute})
		require.NoError(t, err)
		return e
	}
	require.Equal(t, cache.Nothing, epoch().State, "a write does not put a dead key into the open epoch")

	b.redrive(t, "a")

	b.do(t, increment("a", 1))
	snapshot, err := b.cache.Read(t.Context(), shard, []counter.Key{"a"})
	require.NoError(t, err)
	require.False(t, snapshot.Entries[0].Aside)
	e := epoch()
	require.Equal(t, cache.Sealed, e.State)
	keys, _, err := b.cache.EpochKeys(t.Context(), &e, 0, 100)
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"a"}, keys)
	require.NoError(t, b.cache.Release(t.Context(), shard, "test"))
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 3, Version: 3})
	require.True(t, b.do(t, get("a"))[0].Counter.Synced)
}

// There are five times as many dead letters as tasks fit into Asynq's archive.
func TestFiftyThousandDeadLettersAreListedRedrivenAndFlushed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 50_000
	b.buryMany(t, n)
	archived := b.archive(t, "k1", "k49999")

	started := time.Now()
	lap := func(what string) {
		t.Logf("%d %s in %s", n, what, time.Since(started).Round(time.Millisecond))
		started = time.Now()
	}
	listed := make(map[counter.Key]bool, n)
	err := b.service.Each(t.Context(), func(letters []operate.DeadLetter) error {
		require.LessOrEqual(t, len(letters), 500)
		for _, l := range letters {
			require.Equal(t, operate.StateValue, l.Redis.State)
			require.Equal(t, operate.StateNone, l.Postgres.State)
			listed[l.Key] = true
		}
		return nil
	})
	require.NoError(t, err)
	require.Len(t, listed, n)
	lap("listed")
	count, err := b.service.Count(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(n), count)

	redriven, err := b.service.RedriveAll(t.Context())
	require.NoError(t, err)
	require.Len(t, redriven, n)
	lap("redriven")
	for _, key := range archived {
		require.Equal(t, "gone", b.retryState(t, key))
	}
	count, err = b.service.Count(t.Context())
	require.NoError(t, err)
	require.Zero(t, count)
	b.drainAll(t)
	lap("flushed")
	var rows int
	require.NoError(t, b.db.QueryRow(`SELECT count(*) FROM counters`).Scan(&rows))
	require.Equal(t, n, rows)
	require.Len(t, b.await(t, redriven...).Clean, n)
}

// buryMany makes k0 to k<n-1> dead letters, without archived retries.
func (b *testBundle) buryMany(t *testing.T, n int) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(8)
	for from := 0; from < n; from += cache.MaxWrites {
		group.Go(func() error {
			var ops []counter.Operation
			for i := from; i < min(from+cache.MaxWrites, n); i++ {
				ops = append(ops, set(counter.Key("k"+strconv.Itoa(i)), int64(i)))
			}
			b.do(t, ops...)
			for _, op := range ops {
				if err := b.cache.Bury(t.Context(), op.Key, cache.Dead{Reason: "no", Attempts: 1}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
}

// archive puts retries of keys into Asynq's archive, as a worker does at the last attempt.
func (b *testBundle) archive(t *testing.T, keys ...counter.Key) []counter.Key {
	t.Helper()
	client := asynq.NewClientFromRedisClient(b.redis)
	for _, key := range keys {
		require.NoError(t, tasks.Send(t.Context(), client, tasks.Retry(key, 5, time.Hour)))
		require.NoError(t, b.inspector.ArchiveTask(tasks.QueueRetry, tasks.RetryID(key)))
	}
	return keys
}
