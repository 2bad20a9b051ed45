package cache_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// setAside sets keys of one shard aside.
func (b *testBundle) setAside(t *testing.T, until time.Duration, keys ...counter.Key) {
	t.Helper()
	require.NoError(t, b.cache.SetAside(t.Context(), b.cache.Shard(keys[0]), keys, until))
}

// settle settles entries of one shard.
func (b *testBundle) settle(t *testing.T, entries ...cache.Entry) {
	t.Helper()
	require.NoError(t, b.cache.Settle(t.Context(), b.cache.Shard(entries[0].Key), entries))
}

// requeueDue requeues the due keys of a shard and returns them.
func (b *testBundle) requeueDue(t *testing.T, shard counter.Shard) []counter.Key {
	t.Helper()
	keys, err := b.cache.RequeueDue(t.Context(), shard)
	require.NoError(t, err)
	return keys
}

// in returns which of the shard's open, sealed, retry and dead hold a key.
func (b *testBundle) in(t *testing.T, key counter.Key) []string {
	t.Helper()
	var in []string
	for _, set := range []string{"open", "sealed"} {
		if b.redis.SIsMember(t.Context(), b.tag(key)+":"+set, string(key)).Val() {
			in = append(in, set)
		}
	}
	if b.redis.ZScore(t.Context(), b.tag(key)+":retry", string(key)).Err() == nil {
		in = append(in, "retry")
	}
	if b.redis.HExists(t.Context(), b.tag(key)+":dead", string(key)).Val() {
		in = append(in, "dead")
	}
	return in
}

func TestSetAsideKeyAcceptsWritesWithoutEnteringTheOpenEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1), increment(keys[1], 1))
	e := b.seal(t, keys[0])
	b.setAside(t, time.Minute, keys[0])
	require.True(t, b.read(t, keys[0]).Aside)
	require.False(t, b.read(t, keys[1]).Aside)
	require.True(t, b.commit(t, e))
	require.True(t, b.dirty(t, keys[0]))
	require.False(t, b.dirty(t, keys[1]))

	for _, op := range []counter.Operation{increment(keys[0], 4), set(keys[0], 9), del(keys[0]), increment(keys[0], 2), increment(keys[0], 1)} {
		o := b.do(t, op)[0]
		require.NoError(t, o.Err)
		require.Zero(t, o.Backlog, "it is dirty")
		require.Equal(t, []string{"retry"}, b.in(t, keys[0]))
	}
	require.Equal(t, map[string]string{"v": "3", "n": "6", "a": "1"}, b.entry(t, keys[0]))
	require.False(t, b.do(t, get(keys[0]))[0].Synced)
	require.Equal(t, cache.Nothing, b.take(t, 1, cache.Taking{}).State)
}

func TestSettleMakesAnUnchangedEntryClean(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 5))
	b.setAside(t, time.Minute, "a") // it is in the open epoch, too
	open := b.meta(t, "a")["open"]
	lineage := b.read(t, "a").Lineage

	b.settle(t, b.read(t, "a"))

	require.False(t, b.dirty(t, "a"))
	require.Empty(t, b.in(t, "a"))
	require.Equal(t, b.checked(t, "a", map[string]string{"v": "5", "n": "1"}), b.whole(t, "a"), "the key need not be in the set of its epoch")
	require.Greater(t, number36(t, b.meta(t, "a")["open"]), number36(t, open))
	require.Greater(t, b.redis.PTTL(t.Context(), b.entryKey("a")).Val(), 59*time.Minute)
	require.True(t, b.do(t, get("a"))[0].Synced)

	o := b.do(t, increment("a", 1))[0]
	require.Equal(t, int64(1), o.Backlog, "dirty again")
	again := b.dirtyEntry(t, "a")
	require.Greater(t, again.Lineage, lineage, "the number of a lineage is never used twice")
	require.Equal(t, int64(1), again.Base)
	require.Equal(t, time.Duration(-1), b.redis.PTTL(t.Context(), b.entryKey("a")).Val())
}

func TestSettleKeepsADeletedCounterDeleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", 5), del("a"))
	b.setAside(t, time.Minute, "a")
	b.settle(t, b.read(t, "a"))
	require.Equal(t, b.checked(t, "a", map[string]string{"v": "0", "n": "2", "x": "1"}), b.whole(t, "a"))
}

func TestSettlePutsAChangedEntryIntoTheOpenEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	e := b.seal(t, "a")
	b.setAside(t, time.Minute, "a")
	require.True(t, b.commit(t, e))
	committed := b.read(t, "a")
	b.do(t, increment("a", 1))

	for range 2 { // repeating it does nothing
		b.settle(t, committed)
		require.Equal(t, []string{"open"}, b.in(t, "a"))
		require.Equal(t, map[string]string{"v": "2", "n": "2"}, b.entry(t, "a"))
		require.Equal(t, committed.Lineage, b.dirtyEntry(t, "a").Lineage, "the same lineage; Postgres has a part of it")
		require.Equal(t, b.meta(t, "a")["requeued"], b.whole(t, "a")["e"])
		require.NotEmpty(t, b.meta(t, "a")["requeued"], "callers that wait for its older writes must learn of it")
	}
	b.flush(t, "a")
	require.False(t, b.dirty(t, "a"))
}

func TestSettleLeavesARequeuedKeyDirty(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.setAside(t, time.Minute, "a")
	committed := b.read(t, "a")
	require.NoError(t, b.cache.Requeue(t.Context(), []counter.Key{"a"}))
	b.settle(t, committed)
	require.True(t, b.dirty(t, "a"))
	require.Equal(t, []string{"open"}, b.in(t, "a"))
}

func TestRequeueDueRequeuesOnlyDueKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(5)
	due, later, dead, open := keys[0], keys[1], keys[2], keys[3]
	b.warm(t, keys...)
	b.do(t, increment(due, 1), increment(later, 1), increment(dead, 1))
	e := b.seal(t, due)
	b.setAside(t, 0, due)
	b.setAside(t, time.Hour, later)
	require.NoError(t, b.cache.Bury(t.Context(), dead, cache.Dead{Reason: "no"}))
	require.True(t, b.commit(t, e))
	b.do(t, increment(open, 1))

	require.Equal(t, []counter.Key{due}, b.requeueDue(t, 1))
	require.Empty(t, b.requeueDue(t, 1))

	require.Equal(t, [][]string{{"open"}, {"retry"}, {"dead"}, {"open"}, nil},
		[][]string{b.in(t, due), b.in(t, later), b.in(t, dead), b.in(t, open), b.in(t, keys[4])})
	require.Equal(t, map[string]string{"v": "1", "n": "1"}, b.entry(t, due))
	require.Equal(t, b.whole(t, due)["e"], b.meta(t, due)["requeued"])
	require.Greater(t, number36(t, b.meta(t, due)["open"]), number36(t, b.meta(t, due)["requeued"]))
	b.flush(t, due)
	require.False(t, b.dirty(t, due))
	require.True(t, b.dirty(t, later))
}

func TestDueKeysAreRequeuedOldestFirstAndInBoundedCalls(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n, page = 700, 300
	keys := b.alike(n)
	pipe := b.redis.Pipeline()
	for i, key := range keys {
		pipe.ZAdd(t.Context(), "{aw:01}:retry", redisZ(key, float64(1+i)))
	}
	_, err := pipe.Exec(t.Context())
	require.NoError(t, err)
	require.Equal(t, keys[:page], b.requeueDue(t, 1))
	require.Equal(t, keys[page:2*page], b.requeueDue(t, 1))
	require.Equal(t, keys[2*page:], b.requeueDue(t, 1))
	require.Empty(t, b.requeueDue(t, 1))
	require.Equal(t, n, b.seal(t, keys[0]).Keys, "even keys without an entry: a flush handles them")
}

func TestRequeueLeavesOtherKeysAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(4)
	aside, dead, due, clean := keys[0], keys[1], keys[2], keys[3]
	b.bury(t, dead)
	b.warm(t, aside, due, clean)
	b.do(t, increment(aside, 1), increment(due, 1))
	b.setAside(t, time.Hour, aside)

	for range 2 {
		require.NoError(t, b.cache.Requeue(t.Context(), append(keys, aside, "elsewhere")))
		require.Equal(t, []cache.Condition{cache.Pending, cache.IsDead, cache.Pending, cache.Clean}, b.conditions(t, keys...))
		left, err := b.cache.UnflushedOf(t.Context(), keys, nil)
		require.NoError(t, err)
		require.Len(t, left.At, testShards)
		require.Equal(t, number36(t, b.meta(t, due)["open"]), left.At[1])
		left.At = nil
		require.Equal(t, cache.Unflushed{Due: 2, Dead: 1, Shards: []counter.Shard{1}}, left)
	}
	e := b.seal(t, due)
	require.Contains(t, b.keysOf(t, e), aside)
	require.Contains(t, b.keysOf(t, e), due)
	require.False(t, b.read(t, aside).Aside)
	require.True(t, b.read(t, dead).Aside)
	require.Equal(t, "1", b.entry(t, aside)["v"])
}

func TestDeadKeyStaysDirtyAcceptsWritesAndIsCountedApart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "b")
	b.do(t, increment("a", 1))
	dead := cache.Dead{Reason: "violates check", Since: time.Now().UTC().Truncate(time.Second), Attempts: 8}
	e := b.seal(t, "a")
	require.NoError(t, b.cache.Bury(t.Context(), "a", dead))
	require.True(t, b.commit(t, e))
	b.do(t, increment("b", 1))

	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(1), backlog.Dirty)
	require.Equal(t, int64(1), backlog.Dead)
	got, found, err := b.cache.DeadLetter(t.Context(), "a")
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, dead, got)
	require.Equal(t, cache.Outcome{Value: 2, Version: 2, Exists: true, Known: true}, bare(b.do(t, increment("a", 1))[0]))
	require.Equal(t, []string{"dead"}, b.in(t, "a"))
	require.True(t, b.dirty(t, "a"))

	b.settle(t, b.read(t, "a")) // Postgres has accepted it after all
	_, found, err = b.cache.DeadLetter(t.Context(), "a")
	require.NoError(t, err)
	require.False(t, found)
	require.False(t, b.dirty(t, "a"))
}

// A key either waits for a retry or is dead: otherwise two alerts would count it.
func TestSetAsideKeyIsEitherInRetryOrDead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.flushAside(t, "a")
	for range 2 {
		require.Equal(t, []string{"retry"}, b.in(t, "a"))
		require.NoError(t, b.cache.Bury(t.Context(), "a", cache.Dead{Reason: "no"}))
		require.Equal(t, []string{"dead"}, b.in(t, "a"))
		b.setAside(t, time.Minute, "a")
	}
	require.Equal(t, map[string]string{"v": "1", "n": "1", "a": "1"}, b.entry(t, "a"))
}

// flushAside flushes the shard of a key that Postgres refuses.
func (b *testBundle) flushAside(t *testing.T, key counter.Key) {
	t.Helper()
	e := b.seal(t, key)
	b.setAside(t, time.Minute, key)
	require.True(t, b.commit(t, e))
}

func TestCleanKeyCannotBeSetAside(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "b")
	b.do(t, increment("b", 1))
	b.flush(t, "b")
	for _, key := range []counter.Key{"a", "b", "none"} {
		require.NoError(t, b.cache.Bury(t.Context(), key, cache.Dead{}))
		b.setAside(t, time.Minute, key)
		_, found, err := b.cache.DeadLetter(t.Context(), key)
		require.NoError(t, err)
		require.False(t, found)
		require.Empty(t, b.in(t, key))
		require.Empty(t, b.whole(t, key)["a"])
	}
}

// A flush sets corrupt and missing entries aside: they stay dirty until an operator repairs them.
func TestCorruptEntryCanBeSetAsideAndRequeued(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1), increment(keys[1], 1))
	e := b.seal(t, keys[0])
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey(keys[0]), "x", 0).Err())
	require.NoError(t, b.redis.Del(t.Context(), b.entryKey(keys[1])).Err())
	require.NoError(t, b.redis.HSet(t.Context(), b.entryKey(keys[1]), "v", "1").Err())
	b.setAside(t, 0, keys...)
	require.True(t, b.commit(t, e))
	require.Equal(t, []cache.Condition{cache.Pending, cache.Pending}, b.conditions(t, keys...))

	b.settle(t, b.read(t, keys[0]), b.read(t, keys[1]))
	require.Equal(t, []string{"retry"}, b.in(t, keys[0]), "it cannot be in Postgres")
	require.Equal(t, []string{"retry"}, b.in(t, keys[1]))
	require.ElementsMatch(t, keys, b.requeueDue(t, 1))
	require.ElementsMatch(t, keys, b.keysOf(t, b.seal(t, keys[0])))
	require.Equal(t, "x", b.text(t, keys[0]), "it was not changed")
	require.Equal(t, "hash", b.redis.Type(t.Context(), b.entryKey(keys[1])).Val())
}

func TestSettleClearsASetAsideEntryDeletedByHand(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.flushAside(t, "a")
	require.NoError(t, b.redis.Del(t.Context(), b.entryKey("a")).Err())
	require.True(t, b.dirty(t, "a"))
	require.True(t, b.read(t, "a").Missing)
	b.settle(t, b.read(t, "a"))
	require.False(t, b.dirty(t, "a"))
	require.Empty(t, b.in(t, "a"))
}

// The entry was deleted by hand and hydrated again: Postgres has it, and there is nothing to retry.
func TestCleanEntryDueForARetryStaysClean(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.flushAside(t, "a")
	require.NoError(t, b.redis.Del(t.Context(), b.entryKey("a")).Err())
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: counter.Row{Value: 7, Version: 3}}, cache.Hydrated)

	require.NoError(t, b.cache.Requeue(t.Context(), []counter.Key{"a"}))

	require.Equal(t, b.checked(t, "a", map[string]string{"v": "7", "n": "3"}), b.whole(t, "a"))
	require.Empty(t, b.in(t, "a"))
	require.False(t, b.dirty(t, "a"))
}

func TestManyKeysAreSetAsideAndSettled(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 650
	keys := b.alike(n)
	var ops []counter.Operation
	for i, key := range keys {
		ops = append(ops, set(key, int64(i)))
		if len(ops) == cache.MaxWrites || i == n-1 {
			b.blind(t, ops...)
			ops = nil
		}
	}
	e := b.seal(t, keys[0])
	b.setAside(t, time.Hour, keys...)
	require.True(t, b.commit(t, e))
	b.do(t, set(keys[3], 77))
	for _, key := range keys {
		b.hydrate(t, cache.Base{Key: key}, cache.Hydrated)
	}
	snapshot, err := b.cache.Read(t.Context(), 1, keys)
	require.NoError(t, err)
	b.do(t, set(keys[400], 78))

	require.NoError(t, b.cache.Settle(t.Context(), 1, snapshot.Entries))

	require.Zero(t, b.redis.ZCard(t.Context(), "{aw:01}:retry").Val())
	require.Equal(t, []counter.Key{keys[400]}, b.keysOf(t, b.seal(t, keys[0])))
	require.Equal(t, strconv.Itoa(n-1), b.entry(t, keys[n-1])["v"])
	require.False(t, b.dirty(t, keys[n-1]))
}
