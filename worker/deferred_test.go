package worker_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// many returns increments of n counters.
func many(n int) []counter.Operation {
	ops := make([]counter.Operation, n)
	for i := range ops {
		ops[i] = increment(counter.Key(fmt.Sprintf("k%d", i)), 1)
	}
	return ops
}

func TestLockedRowDelaysOnlyItself(t *testing.T) {
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
	require.Equal(t, 1, int(count(t, b.registry, "afterwrite_hindered_rows_total")))
	lags := int(count(t, b.registry, "afterwrite_sync_lag_seconds"))
	require.NoError(t, tx.Rollback())
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		_, left := b.drainAll(t)
		return left == 0, "it is still set aside"
	})
	b.requireRow(t, counter.Row{Key: "locked", Value: 2, Version: 2})
	require.Equal(t, lags+1, int(count(t, b.registry, "afterwrite_sync_lag_seconds")), "its lag is observed once")
}

func TestBatchThatTimesOutIsMadeSmaller(t *testing.T) {
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

// A full Redis refuses the retry task of a bad row: the other rows must still be flushed, to make room.
func TestBadRowInAFullRedisDelaysOnlyItself(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL(), localtest.PostgresURL(t, migrate), map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 1000)`)
	b.do(t, set("bad", 5000))
	b.do(t, many(300)...)
	b.write(t, true, []counter.Operation{increment("blind", 1)}) // it must be rebased first
	require.NoError(t, b.redis.ConfigSet(context.Background(), "maxmemory", "1").Err())

	_, left, err := b.worker.DrainAll(t.Context(), "test")

	require.ErrorContains(t, err, "OOM")
	require.Equal(t, int64(1), left)
}

func TestSetRepairsACounterWhoseSumWouldOverflow(t *testing.T) {
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
		return left == 0, "they are set aside until their retry"
	})
	b.requireRow(t, counter.Row{Key: "a", Value: 3, Version: 1 + 1 + 2})
	b.requireRow(t, counter.Row{Key: "b", Version: 1 + 1 + 1, Deleted: true})
}

// A batch whose rows are all ahead costs a few calls, not one for each key.
func TestReconcilingABatchTakesAFewCalls(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL(), localtest.PostgresURL(t, migrate), map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, many(400)...)
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at) SELECT 'k' || i, 7, 9, now() FROM generate_series(0, 399) i`)
	calls := func() int { return localtest.Calls(t, b.redis)["evalsha"] }
	before := calls()

	b.drainAll(t)

	require.Less(t, calls()-before, 10)
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "k5", Value: 8, Version: 10})
}

// A row that another transaction is inserting is invisible, but delays only itself.
func TestRowOfAnUncommittedInsertDelaysOnlyItself(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	tx, err := b.db.Begin()
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.Exec(`INSERT INTO counters (key, value, version, updated_at) VALUES ('k3', 1, 1, now())`)
	require.NoError(t, err)
	b.do(t, many(8)...)

	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		_, left, err := b.worker.DrainAll(t.Context(), "test")
		return left == 1, fmt.Sprint(left, " left: ", err)
	})
	require.True(t, b.store.Available())
	require.NoError(t, tx.Rollback())
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		_, left, err := b.worker.DrainAll(t.Context(), "test")
		return left == 0, fmt.Sprint(left, " left: ", err)
	})
}

func TestSlowRowDelaysOnlyItself(t *testing.T) {
	t.Parallel()
	b := setupOn(t, localtest.RedisURL(t), localtest.PostgresURL(t, migrate)+"&statement_timeout=400",
		map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.exec(t, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN IF NEW.key = ''k0'' THEN PERFORM pg_sleep(2); END IF; RETURN NEW; END'`)
	b.exec(t, `CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION slow()`)
	b.do(t, many(50)...)

	localtest.Eventually(t, 40*time.Second, func() (bool, string) {
		_, left, err := b.worker.DrainAll(t.Context(), "test")
		return left == 1, fmt.Sprint(left, " left: ", err)
	})

	// From now on the slow row is known and no longer shrinks the batches of the others.
	limit, _ := b.limits(t)
	slow := count(t, b.registry, "afterwrite_hindered_rows_total")
	localtest.Eventually(t, 40*time.Second, func() (bool, string) {
		b.do(t, many(50)...)
		_, left, err := b.worker.DrainAll(t.Context(), "test")
		again := count(t, b.registry, "afterwrite_hindered_rows_total") - slow
		return left == 1 && again > 1, fmt.Sprint(left, " left, tried again ", again, " times: ", err)
	})
	now, _ := b.limits(t)
	require.GreaterOrEqual(t, now, limit)
}

// Redis's clock was ahead when the key became dirty, and was corrected afterwards.
func TestKeyWithAFutureTimestampIsFlushed(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, increment("a", 1), increment("dead", 1))
	require.NoError(t, b.cache.Bury(t.Context(), "dead", cache.Dead{Reason: "no"}))
	b.age(t, "a", -24*time.Hour)
	overdue, err := b.cache.Overdue(t.Context(), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []counter.Shard{b.cache.Shard("a")}, overdue, "a sweep finds it")

	rows, _ := b.drainAll(t)

	require.Equal(t, int64(1), rows, "and the dead key is left alone")
	b.requireRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
}

// Another program has overwritten a shard's open epoch: operations of the same call on other shards still count.
func TestCorruptShardFailsOnlyItself(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, set("good", 1), set("bad", 1), set("big", math.MaxInt64-1))
	b.drainAll(t)
	for _, key := range []counter.Key{"bad", "big"} {
		require.NotEqual(t, b.cache.Shard("good"), b.cache.Shard(key))
		require.NoError(t, b.redis.Set(context.Background(), b.name(key, "open"), "x", 0).Err())
	}

	r := b.service.Do(t.Context(), []counter.Operation{increment("good", 1), increment("bad", 1), increment("big", 1), increment("good", 1)},
		noOptions)

	require.NoError(t, r[0].Err)
	require.Equal(t, counter.CodeInternal, counter.CodeOf(r[1].Err))
	require.Equal(t, counter.CodeInternal, counter.CodeOf(r[2].Err))
	require.NoError(t, r[3].Err)
	require.Equal(t, int64(3), r[3].Counter.Value)
	bad := b.redis.Get(context.Background(), b.name("bad", "c:bad")).Val()
	require.Equal(t, "1", localtest.EntryFields(bad)["v"])
	require.True(t, b.redis.SIsMember(context.Background(), b.name("good", "open"), "good").Val(), "a flush finds the keys of other shards")
}

// A full Redis cannot hold a cold counter, but the counter can be read.
func TestColdCounterIsReadInAFullRedis(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL(), localtest.PostgresURL(t, migrate), nil)
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at) VALUES ('a', 7, 3, now())`)
	require.NoError(t, b.redis.ConfigSet(context.Background(), "maxmemory", "1").Err())

	got := b.do(t, get("a"))[0].Counter

	require.Equal(t, counter.Counter{Key: "a", Value: 7, Version: 3, Exists: true, Synced: true, Known: true}, got)
}
