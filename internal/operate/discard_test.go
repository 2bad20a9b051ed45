package operate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// refuse makes a key a dead letter that Postgres refused, as the worker would.
func (b *testBundle) refuse(t *testing.T, ops ...counter.Operation) counter.Key {
	t.Helper()
	b.do(t, ops...)
	key := ops[0].Key
	b.bury(t, key)
	b.archive(t, key)
	return key
}

func TestDiscardReturnsToWhatPostgresHas(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 7))
	b.drainAll(t)
	b.forbid(t)
	b.refuse(t, increment("a", 5), increment("a", 5))

	letter := b.get(t, "a")
	require.Equal(t, "17 (version 3)", letter.Redis.String())
	require.Equal(t, "7 (version 1)", letter.Postgres.String())
	returned, err := b.service.Discard(t.Context(), letter)
	require.NoError(t, err)
	require.Equal(t, operate.Discarded{Now: operate.Stored{State: operate.StateValue, Value: 7, Version: 4}}, returned)

	require.Zero(t, b.redis.Exists(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a").Val(), "the next read asks postgres")
	require.Equal(t, counter.Counter{Key: "a", Value: 7, Version: 4, Exists: true, Synced: true, Known: true}, b.do(t, get("a"))[0].Counter)
	b.requireNotDead(t, "a")
	require.Equal(t, "gone", b.retryState(t, "a"))
	b.do(t, increment("a", 1))
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 8, Version: 5})

	_, err = b.service.Discard(t.Context(), letter)
	require.Equal(t, operate.NotDead, operate.ReasonOf(err), "twice")
}

func TestDiscardOfWhatPostgresNeverHadDeletesTheCounter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.forbid(t)
	b.refuse(t, set("a", 10))
	returned, err := b.service.Discard(t.Context(), b.get(t, "a"))
	require.NoError(t, err)
	require.Equal(t, "deleted (version 2)", returned.Now.String())
	require.False(t, b.do(t, get("a"))[0].Counter.Exists)
	require.Equal(t, int64(3), b.do(t, increment("a", 1))[0].Counter.Version)
}

func TestWriteBetweenShowAndDiscardMakesItRefuse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.forbid(t)
	b.refuse(t, set("a", 10))
	shown := b.get(t, "a")
	b.do(t, increment("a", 1))

	_, err := b.service.Discard(t.Context(), shown)
	require.Equal(t, operate.Changed, operate.ReasonOf(err))
	letter := b.get(t, "a")
	require.Equal(t, "11 (version 2)", letter.Redis.String(), "nothing was touched")
	require.Equal(t, operate.StateNone, letter.Postgres.State)
	require.Equal(t, "archived", b.retryState(t, "a"))
}

// A worker was stopped between its read and its upsert, and goes on after the discard, when Postgres would take the row.
func TestFlushUnderWayDoesNotBringBackWhatWasDiscarded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 7))
	b.drainAll(t)
	b.forbid(t)
	b.refuse(t, increment("a", 5))
	late, err := b.cache.Read(t.Context(), b.cache.Shard("a"), []counter.Key{"a"})
	require.NoError(t, err)

	_, err = b.service.Discard(t.Context(), b.get(t, "a"))
	require.NoError(t, err)
	b.do(t, increment("a", 1)) // of a version that the late flush must not compete with
	b.allow(t)
	ahead, err := b.store.Upsert(t.Context(), []counter.Row{late.Entries[0].Row})
	require.NoError(t, err)
	require.Equal(t, []counter.Row{{Key: "a", Value: 7, Version: 3}}, ahead)
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 8, Version: 4})
}

// Redis lost its last moments, so Postgres is ahead: the version goes on from the higher of the two.
func TestDiscardOfARedisThatIsBehind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 1), set("a", 2), set("a", 3))
	b.drainAll(t)
	require.NoError(t, b.redis.Set(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a", "1 1 0", 0).Err())
	b.refuse(t, increment("a", 1))
	returned, err := b.service.Discard(t.Context(), b.get(t, "a"))
	require.NoError(t, err)
	require.Equal(t, "3 (version 4)", returned.Now.String())
	b.requireRow(t, counter.Row{Key: "a", Value: 3, Version: 4})
}

// A tombstone's value is 0, and a row is refused for that too.
func TestDiscardGoesThroughWhenPostgresRefusesEveryRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT positive CHECK (value > 0)`)
	b.refuse(t, set("a", -5))
	returned, err := b.service.Discard(t.Context(), b.get(t, "a"))
	require.NoError(t, err)
	require.ErrorContains(t, returned.Refused, "positive")
	require.Equal(t, operate.StateNone, returned.Now.State)
	b.requireNotDead(t, "a")
	require.False(t, b.do(t, get("a"))[0].Counter.Exists)
}

// The command died after its first step: the key is dead still, at Postgres's value. Both ways out are open.
func TestDiscardThatDiedHalfwayCanBeFinishedEitherWay(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 7), set("b", 7))
	b.drainAll(t)
	b.forbid(t)
	for _, key := range []counter.Key{"a", "b"} {
		b.refuse(t, increment(key, 5))
		snapshot, err := b.cache.Read(t.Context(), b.cache.Shard(key), []counter.Key{key})
		require.NoError(t, err)
		_, err = b.cache.Rewind(t.Context(), snapshot.Entries[0], counter.Row{Key: key, Value: 7, Version: 3})
		require.NoError(t, err)
	}
	_, err := b.store.Upsert(t.Context(), []counter.Row{{Key: "b", Value: 7, Version: 3}}) // it came as far as this with b
	require.NoError(t, err)

	_, err = b.service.Discard(t.Context(), b.get(t, "a"))
	require.NoError(t, err)
	b.requireRow(t, counter.Row{Key: "a", Value: 7, Version: 4})
	b.redrive(t, "b")
	b.drainAll(t)
	b.requireNotDead(t, "b")
	require.True(t, b.do(t, get("b"))[0].Counter.Synced)
	b.requireRow(t, counter.Row{Key: "b", Value: 7, Version: 3})
}

func TestDiscardOfACounterThatSomebodyOverwrote(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 7))
	b.drainAll(t)
	b.refuse(t, increment("a", 5))
	require.NoError(t, b.redis.Set(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a", "x", 0).Err())
	letter := b.get(t, "a")
	require.Equal(t, operate.StateForeign, letter.Redis.State)
	returned, err := b.service.Discard(t.Context(), letter)
	require.NoError(t, err)
	require.Equal(t, "7 (version 1)", returned.Now.String())
	require.Equal(t, int64(7), b.do(t, get("a"))[0].Counter.Value)
}
