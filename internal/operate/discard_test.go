package operate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

// refuse carries out operations on one key and makes it a dead letter with an archived retry, as a worker does.
func (b *testBundle) refuse(t *testing.T, ops ...counter.Operation) counter.Key {
	t.Helper()
	b.do(t, ops...)
	key := ops[0].Key
	b.bury(t, key)
	b.archive(t, key)
	return key
}

func TestDiscardResetsTheCounterToItsRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 7))
	b.drainAll(t)
	b.forbid(t)
	b.refuse(t, increment("a", 5), increment("a", 5))

	letter := b.get(t, "a")
	require.Equal(t, "17 (version 3)", letter.Redis.String())
	require.Equal(t, "7 (version 1)", letter.Postgres.String())
	done, err := b.service.Discard(t.Context(), letter)
	require.NoError(t, err)
	require.Equal(t, operate.Discarded{Now: operate.Stored{State: operate.StateValue, Value: 7, Version: 4}}, done)

	require.Zero(t, b.redis.Exists(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a").Val(), "the next read hydrates it")
	require.Equal(t, counter.Counter{Key: "a", Value: 7, Version: 4, Exists: true, Synced: true, Known: true}, b.do(t, get("a"))[0].Counter)
	b.requireNotDead(t, "a")
	require.Equal(t, "gone", b.retryState(t, "a"))
	b.do(t, increment("a", 1))
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 8, Version: 5})

	_, err = b.service.Discard(t.Context(), letter)
	require.Equal(t, operate.NotDead, operate.ReasonOf(err), "it was discarded already")
}

func TestDiscardWithoutARowDeletesTheCounter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.forbid(t)
	b.refuse(t, set("a", 10))
	done, err := b.service.Discard(t.Context(), b.get(t, "a"))
	require.NoError(t, err)
	require.Equal(t, "deleted (version 2)", done.Now.String())
	require.False(t, b.do(t, get("a"))[0].Counter.Exists)
	require.Equal(t, int64(3), b.do(t, increment("a", 1))[0].Counter.Version)
}

func TestDiscardRefusesACounterWrittenSinceItWasShown(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.forbid(t)
	b.refuse(t, set("a", 10))
	shown := b.get(t, "a")
	b.do(t, increment("a", 1))

	_, err := b.service.Discard(t.Context(), shown)
	require.Equal(t, operate.Changed, operate.ReasonOf(err))
	letter := b.get(t, "a")
	require.Equal(t, "11 (version 2)", letter.Redis.String(), "nothing was changed")
	require.Equal(t, operate.StateNone, letter.Postgres.State)
	require.Equal(t, "archived", b.retryState(t, "a"))
}

// A worker reads the entry before the discard and upserts it afterwards, when Postgres would accept the row.
func TestFlushInProgressDoesNotRestoreWhatWasDiscarded(t *testing.T) {
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
	b.do(t, increment("a", 1)) // its version must be higher than the late flush's
	b.allow(t)
	ahead, err := b.store.Upsert(t.Context(), []counter.Row{late.Entries[0].Row})
	require.NoError(t, err)
	require.Equal(t, []counter.Row{{Key: "a", Value: 7, Version: 3}}, ahead)
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "a", Value: 8, Version: 4})
}

// A worker flushes the counter between the reading of the dead letter and its discard: the column must go back with the row.
func TestDiscardWritesTheColumnToo(t *testing.T) {
	t.Parallel()
	mappings, err := mapping.Parse([]byte(`mappings: [{name: posts, key: "post:{id:int}", table: posts, where: {id: "{id}"}, set: likes}]`))
	require.NoError(t, err)
	const key = "post:1"
	b := setup(t)
	b.exec(t, `CREATE TABLE public.posts (id int PRIMARY KEY, likes bigint NOT NULL DEFAULT 0)`)
	b.exec(t, `INSERT INTO public.posts (id) VALUES (1)`)
	s, err := store.Open(b.url, store.Options{Mappings: mappings})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	b.service = operate.New(operate.Options{Cache: b.cache, Store: s, Redis: b.redis})

	b.do(t, set(key, 7))
	b.drainAll(t)
	b.forbid(t)
	b.refuse(t, increment(key, 5))
	letter := b.get(t, key)
	b.allow(t)
	snapshot, err := b.cache.Read(t.Context(), b.cache.Shard(key), []counter.Key{key})
	require.NoError(t, err)
	_, err = s.UpsertUnlocked(t.Context(), []counter.Row{snapshot.Entries[0].Row})
	require.NoError(t, err)

	_, err = b.service.Discard(t.Context(), letter)
	require.NoError(t, err)
	b.requireRow(t, counter.Row{Key: key, Value: 7, Version: 3})
	var likes int64
	require.NoError(t, b.db.QueryRow(`SELECT likes FROM public.posts`).Scan(&likes))
	require.Equal(t, int64(7), likes)
}

// Redis lost its latest writes, so Postgres is ahead. The version continues from the higher of the two.
func TestDiscardContinuesFromTheHigherVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 1), set("a", 2), set("a", 3))
	b.drainAll(t)
	require.NoError(t, b.redis.Set(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a", "1 1 0 lzzzzzzzzzz", 0).Err())
	b.refuse(t, increment("a", 1))
	done, err := b.service.Discard(t.Context(), b.get(t, "a"))
	require.NoError(t, err)
	require.Equal(t, "3 (version 4)", done.Now.String())
	b.requireRow(t, counter.Row{Key: "a", Value: 3, Version: 4})
}

// Postgres also refuses the tombstone, because its value is 0.
func TestDiscardSucceedsIfPostgresRefusesEveryRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT positive CHECK (value > 0)`)
	b.refuse(t, set("a", -5))
	done, err := b.service.Discard(t.Context(), b.get(t, "a"))
	require.NoError(t, err)
	require.ErrorContains(t, done.Refused, "positive")
	require.Equal(t, operate.StateNone, done.Now.State)
	b.requireNotDead(t, "a")
	require.False(t, b.do(t, get("a"))[0].Counter.Exists)
}

// The command died after a step: the key is still dead, with Postgres's value. It can be discarded again or redriven.
func TestInterruptedDiscardCanBeRepeatedOrRedriven(t *testing.T) {
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
	_, err := b.store.Upsert(t.Context(), []counter.Row{{Key: "b", Value: 7, Version: 3}}) // for b, the second step was done too
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

func TestDiscardOfACorruptEntryKeepsTheRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, set("a", 7))
	b.drainAll(t)
	b.refuse(t, increment("a", 5))
	require.NoError(t, b.redis.Set(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a", "x", 0).Err())
	letter := b.get(t, "a")
	require.Equal(t, operate.StateForeign, letter.Redis.State)
	done, err := b.service.Discard(t.Context(), letter)
	require.NoError(t, err)
	require.Equal(t, "7 (version 1)", done.Now.String())
	require.Equal(t, int64(7), b.do(t, get("a"))[0].Counter.Value)
}
