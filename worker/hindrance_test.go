package worker_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// many are increments of n counters.
func many(n int) []counter.Operation {
	ops := make([]counter.Operation, n)
	for i := range ops {
		ops[i] = increment(counter.Key(fmt.Sprintf("k%d", i)), 1)
	}
	return ops
}

func TestRowThatSomebodyElseHoldsLockedCostsOnlyItself(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, increment("locked", 1))
	b.drainAll(t)
	tx, err := b.db.Begin()
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.Exec(`UPDATE counters SET updated_at = now() WHERE key = 'locked'`)
	require.NoError(t, err)
	b.do(t, increment("locked", 1))
	b.do(t, many(50)...)

	rows, left := b.drainAll(t)

	require.Equal(t, int64(50), rows)
	require.Equal(t, int64(1), left)
	require.True(t, b.store.Available())
	require.Zero(t, b.backlog(t).Dead)
	require.NoError(t, tx.Rollback())
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		_, left := b.drainAll(t)
		return left == 0, "it is still put aside"
	})
	b.requireRow(t, counter.Row{Key: "locked", Value: 2, Version: 2})
}

func TestBatchThatTakesTooLongIsMadeSmaller(t *testing.T) {
	t.Parallel()
	b := setupOn(t, localtest.RedisURL(t), localtest.PostgresURL(t, migrate)+"&statement_timeout=400",
		map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.exec(t, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END'`)
	b.exec(t, `CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION slow()`)
	b.do(t, many(300)...) // 1.5 s in one statement

	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		_, left, err := b.worker.DrainAll(t.Context(), "test")
		return left == 0, fmt.Sprint(left, " left: ", err)
	})
}

// A full Redis refuses the retry of a bad row: the rows beside it must land all the same, and make room.
func TestBadRowCostsOnlyItselfInAFullRedis(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL(), localtest.PostgresURL(t, migrate), map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 1000)`)
	b.do(t, set("bad", 5000))
	b.do(t, many(300)...)
	b.write(t, true, []counter.Operation{increment("blind", 1)}) // its base has to be brought in first
	require.NoError(t, b.redis.ConfigSet(context.Background(), "maxmemory", "1").Err())

	_, left, err := b.worker.DrainAll(t.Context(), "test")

	require.ErrorContains(t, err, "OOM")
	require.Equal(t, int64(1), left)
}

func TestSetMendsACounterWhoseSumWouldOverflow(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_RETRY_BACKOFF": "10ms", "AFTERWRITE_SWEEP_INTERVAL": "1s"})
	b.do(t, set("a", math.MaxInt64), set("b", math.MaxInt64))
	b.drainAll(t)
	require.NoError(t, b.redis.FlushDB(context.Background()).Err())
	blind := []counter.Operation{increment("a", 5), increment("b", 5)}
	for _, r := range b.service.Do(t.Context(), blind, writepath.Options{Minimal: true}) {
		require.NoError(t, r.Err)
	}
	b.drainAll(t)
	require.Equal(t, counter.CodeOverflow, counter.CodeOf(b.service.Do(t.Context(), []counter.Operation{get("a")}, noOptions)[0].Err))

	b.do(t, set("a", 1), increment("a", 2), del("b"))

	require.Equal(t, int64(3), b.do(t, get("a"))[0].Counter.Value)
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		_, left := b.drainAll(t)
		return left == 0, "they are put aside until their retry"
	})
	b.requireRow(t, counter.Row{Key: "a", Value: 3, Version: 1 + 1 + 2})
	b.requireRow(t, counter.Row{Key: "b", Version: 1 + 1 + 1, Deleted: true})
}

// A whole batch of which Postgres has newer rows costs a few calls, not one for each key.
func TestReconcilingABatchTakesAFewCalls(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL(), localtest.PostgresURL(t, migrate), map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, many(400)...)
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at) SELECT 'k' || i, 7, 9, now() FROM generate_series(0, 399) i`)
	calls := func() (n int64) {
		stats, err := b.redis.Info(context.Background(), "commandstats").Result()
		require.NoError(t, err)
		for line := range strings.SplitSeq(stats, "\r\n") {
			_, _ = fmt.Sscanf(line, "cmdstat_evalsha:calls=%d", &n)
		}
		return n
	}
	before := calls()

	b.drainAll(t)

	require.Less(t, calls()-before, int64(10))
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "k5", Value: 8, Version: 10})
}
