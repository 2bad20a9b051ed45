package writepath_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// waitLong is longer than any of these tests.
const waitLong = time.Minute

// flush flushes all dirty keys that are not set aside, as a worker does.
func (b *testBundle) flush(t *testing.T) {
	t.Helper()
	for shard := range counter.Shard(b.cache.Shards()) {
		for e := b.seal(t, shard); e.Keys > 0; e = b.seal(t, shard) {
			b.upsert(t, b.read(t, e))
			b.commit(t, e)
		}
	}
}

func (b *testBundle) seal(t *testing.T, shard counter.Shard) *cache.Epoch {
	t.Helper()
	e, err := b.cache.Seal(t.Context(), shard, cache.Taking{Owner: "test", Lease: time.Minute})
	require.NoError(t, err)
	return &e
}

// read reads the entries of a sealed epoch that are not set aside; it rebases those whose base is unknown.
func (b *testBundle) read(t *testing.T, e *cache.Epoch) []cache.Entry {
	t.Helper()
	keys, next, err := b.cache.EpochKeys(t.Context(), e, 0, 100_000)
	require.NoError(t, err)
	require.Zero(t, next)
	snapshot, err := b.cache.Read(t.Context(), e.Shard, keys)
	require.NoError(t, err)
	var entries []cache.Entry
	for _, e := range snapshot.Entries {
		switch {
		case e.Aside:
		case e.BaseUnknown:
			entries = append(entries, b.rebase(t, e.Key, snapshot.Token))
		default:
			entries = append(entries, e)
		}
	}
	return entries
}

func (b *testBundle) rebase(t *testing.T, key counter.Key, token string) cache.Entry {
	t.Helper()
	found, err := b.store.Read(t.Context(), []counter.Key{key})
	require.NoError(t, err)
	row, ok := found[key]
	_, rebased, err := b.cache.Rebase(t.Context(), []cache.Base{{Key: key, Row: row, Found: ok, Token: token}})
	require.NoError(t, err)
	require.Len(t, rebased, 1)
	return rebased[0]
}

func (b *testBundle) upsert(t *testing.T, entries []cache.Entry) {
	t.Helper()
	rows := make([]counter.Row, len(entries))
	for i := range entries {
		rows[i] = entries[i].Row
	}
	b.stored(t, rows...)
}

func (b *testBundle) commit(t *testing.T, e *cache.Epoch) {
	t.Helper()
	_, done, err := b.cache.Commit(t.Context(), e)
	require.NoError(t, err)
	require.True(t, done)
}

// setAside sets a dirty key aside, as a worker does if Postgres refuses it.
func (b *testBundle) setAside(t *testing.T, key counter.Key) {
	t.Helper()
	require.NoError(t, b.cache.SetAside(t.Context(), b.cache.Shard(key), []counter.Key{key}, time.Hour))
}

// entry reads an entry.
func (b *testBundle) entry(t *testing.T, key counter.Key) cache.Entry {
	t.Helper()
	snapshot, err := b.cache.Read(t.Context(), b.cache.Shard(key), []counter.Key{key})
	require.NoError(t, err)
	return snapshot.Entries[0]
}

// retry flushes a set-aside key, as a worker does when Postgres accepts it at last.
func (b *testBundle) retry(t *testing.T, key counter.Key) {
	t.Helper()
	e := b.entry(t, key)
	require.True(t, e.Aside)
	b.stored(t, e.Row)
	require.NoError(t, b.cache.Settle(t.Context(), b.cache.Shard(key), []cache.Entry{e}))
}

// inShardOf returns another key of the same shard.
func (b *testBundle) inShardOf(key counter.Key) counter.Key {
	for i := 0; ; i++ {
		if other := counter.Key("other" + strconv.Itoa(i)); b.cache.Shard(other) == b.cache.Shard(key) {
			return other
		}
	}
}

// eventuallyWait blocks until n waiting operations have been checked.
func (b *testBundle) eventuallyWait(t *testing.T, n int) {
	t.Helper()
	localtest.Eventually(t, time.Minute, func() (bool, string) {
		return writepath.Checked(b.service) == n, strconv.Itoa(writepath.Checked(b.service)) + " wait"
	})
}

// requireWaits checks all waiting operations, and requires that n keep waiting.
func (b *testBundle) requireWaits(t *testing.T, n int) {
	t.Helper()
	writepath.Check(t.Context(), b.service)
	require.Equal(t, n, writepath.Checked(b.service), "operations that still wait")
}

// waiting begins an operation that waits, and returns the channel of its result.
func (b *testBundle) waiting(t *testing.T, o counter.Operation, options writepath.Options) <-chan counter.Result {
	t.Helper()
	if options.Wait == 0 {
		options.Wait = waitLong
	}
	result := make(chan counter.Result, 1)
	go func() { result <- b.service.Do(context.Background(), []counter.Operation{o}, options)[0] }()
	return result
}

func (b *testBundle) eventuallyDirty(t *testing.T, n int64) {
	t.Helper()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		backlog, err := b.cache.Backlog(t.Context())
		require.NoError(t, err)
		dirty := backlog.Dirty + backlog.Dead
		return dirty == n, "dirty: " + strconv.FormatInt(dirty, 10)
	})
}

func receive(t *testing.T, from <-chan counter.Result) counter.Result {
	t.Helper()
	select {
	case r := <-from:
		return r
	case <-time.After(20 * time.Second):
		require.Fail(t, "no answer")
		return counter.Result{}
	}
}

func requireNone(t *testing.T, from <-chan counter.Result) {
	t.Helper()
	select {
	case r := <-from:
		require.Fail(t, "answered too early", "%+v", r)
	default:
	}
}

func TestWaitingWriteReturnsWhenPostgresHasIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	result := b.waiting(t, op(counter.Increment, "a", 5), writepath.Options{})
	b.eventuallyDirty(t, 1)
	requireNone(t, result)

	b.flush(t)

	require.Equal(t, counter.Counter{Key: "a", Value: 5, Version: 1, Exists: true, Known: true, Synced: true, SyncedVersion: 1},
		receive(t, result).Counter)
}

func TestWaitThatTimesOutIsNotSynced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := receive(t, b.waiting(t, op(counter.Set, "a", 5), writepath.Options{Wait: 20 * time.Millisecond}))
	require.NoError(t, r.Err)
	require.False(t, r.Counter.Synced)
	require.Zero(t, r.Counter.SyncedVersion)
	require.Equal(t, int64(5), r.Counter.Value)
}

func TestReadWaitsForItsVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, op(counter.Set, "a", 5))
	now := b.waiting(t, op(counter.Get, "a", 0), writepath.Options{})
	later := b.waiting(t, op(counter.Get, "a", 0), writepath.Options{Version: 3})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { return b.hints.count("a") >= 2, "no hint was sent" })

	b.flush(t)

	require.Equal(t, counter.Counter{Key: "a", Value: 5, Version: 1, Exists: true, Known: true, Synced: true, SyncedVersion: 1},
		receive(t, now).Counter)
	requireNone(t, later)
	b.do(t, op(counter.Increment, "a", 1), op(counter.Increment, "a", 1))
	b.flush(t)
	r := receive(t, later).Counter
	require.True(t, r.Synced)
	require.Equal(t, int64(7), r.Value)
	require.Equal(t, int64(3), r.SyncedVersion)
	require.True(t, receive(t, b.waiting(t, op(counter.Get, "a", 0), writepath.Options{Version: 2})).Counter.Synced, "at once")
	require.False(t, receive(t, b.waiting(t, op(counter.Get, "none", 0), writepath.Options{})).Counter.Exists, "at once")
}

// A counter that is written all the time is never clean, but the epochs of its writes are committed.
func TestWaitForABusyCounterEndsWithTheFlush(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, op(counter.Set, "a", 1))
	result := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{})
	b.eventuallyWait(t, 1)
	e := b.seal(t, b.cache.Shard("a"))
	entries := b.read(t, e)
	b.do(t, op(counter.Increment, "a", 1))
	newer := b.waiting(t, op(counter.Get, "a", 0), writepath.Options{})
	b.eventuallyWait(t, 2)
	b.upsert(t, entries)
	b.requireWaits(t, 2)

	b.commit(t, e)

	r := receive(t, result).Counter
	require.Equal(t, counter.Counter{Key: "a", Value: 2, Version: 2, Exists: true, Known: true, Synced: true, SyncedVersion: 2}, r)
	b.requireWaits(t, 1)
	b.flush(t)
	require.Equal(t, int64(3), receive(t, newer).Counter.SyncedVersion)
}

func TestReadReportsTheVersionItWaitedForDespiteANewerOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, op(counter.Set, "a", 1), op(counter.Set, "a", 2))
	read := b.waiting(t, op(counter.Get, "a", 0), writepath.Options{Version: 2})
	b.eventuallyWait(t, 1)
	e := b.seal(t, b.cache.Shard("a"))
	b.upsert(t, b.read(t, e))
	b.do(t, op(counter.Increment, "a", 1))
	b.commit(t, e)
	r := receive(t, read).Counter
	require.True(t, r.Synced)
	require.Equal(t, int64(3), r.Version)
	require.Equal(t, int64(2), r.SyncedVersion, "an older version than the result's")
}

func TestBlindWriteCanBeWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.stored(t, counter.Row{Key: "a", Value: 40, Version: 9})
	result := b.waiting(t, op(counter.Increment, "a", 2), writepath.Options{Minimal: true})
	b.eventuallyDirty(t, 1)
	b.flush(t)
	r := receive(t, result).Counter
	require.True(t, r.Synced)
	require.False(t, r.Known)
	require.Equal(t, int64(10), r.SyncedVersion)
}

// The version of the write is then unknown, and the newer version is not in Postgres yet.
func TestBlindWriteFollowedByAnotherReportsNoVersion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.stored(t, counter.Row{Key: "a", Value: 40, Version: 9})
	result := b.waiting(t, op(counter.Increment, "a", 2), writepath.Options{Minimal: true})
	b.eventuallyWait(t, 1)
	e := b.seal(t, b.cache.Shard("a"))
	b.upsert(t, b.read(t, e))
	require.Equal(t, int64(11), b.do(t, op(counter.Increment, "a", 1))[0].Counter.Version)
	b.commit(t, e)
	r := receive(t, result).Counter
	require.True(t, r.Synced)
	require.Zero(t, r.SyncedVersion)
}

func TestWaitForAMissingEntryReadsPostgres(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, op(counter.Set, "a", 1), op(counter.Set, "lost", 1))
	b.flush(t)
	kept := b.waiting(t, op(counter.Get, "a", 0), writepath.Options{Version: 2})
	lost := b.waiting(t, op(counter.Get, "lost", 0), writepath.Options{Version: 2, Wait: 5 * time.Second})
	b.eventuallyWait(t, 2)
	// Version 2 of a was written, flushed and evicted before the check; version 2 of the other key was lost.
	b.stored(t, counter.Row{Key: "a", Value: 2, Version: 2})
	for _, key := range []counter.Key{"a", "lost"} {
		require.NoError(t, b.redis.Del(t.Context(), "{aw:"+b.cache.Shard(key).String()+"}:c:"+string(key)).Err())
	}

	b.requireWaits(t, 1)
	require.True(t, receive(t, kept).Counter.Synced)
	require.False(t, receive(t, lost).Counter.Synced, "Postgres has an older version")
}

// While keys of the shard are set aside, waits are decided by the entry, which may have been evicted once clean.
func TestWriteWhoseEntryWasEvictedIsSynced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := b.inShardOf("a")
	b.do(t, op(counter.Set, other, 1))
	b.setAside(t, other)
	result := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{})
	b.eventuallyWait(t, 1)
	e := b.seal(t, b.cache.Shard("a"))
	b.upsert(t, b.read(t, e))
	asked := b.reads.calls.Load()
	require.NoError(t, b.redis.Del(t.Context(), "{aw:"+b.cache.Shard("a").String()+"}:c:a").Err())
	b.commit(t, e)
	require.True(t, receive(t, result).Counter.Synced)
	require.Greater(t, b.reads.calls.Load(), asked, "only the row shows it")
}

func TestEmptiedRedisEndsWaitsAsNotSynced(t *testing.T) {
	t.Parallel()
	b := setup(t)
	result := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{})
	b.eventuallyWait(t, 1)
	require.NoError(t, b.redis.FlushDB(t.Context()).Err())
	b.do(t, op(counter.Set, "a", 7)) // the same version again, but another operation
	b.flush(t)
	require.False(t, receive(t, result).Counter.Synced)
}

func TestRestartOfRedisEndsWaitsAsNotSynced(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupWith(t, server.URL(), localtest.PostgresURL(t, migrate), waitLong)
	result := b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		n, err := b.redis.PubSubNumSub(t.Context(), "aw:acks").Result()
		return err == nil && n["aw:acks"] == 1, "not subscribed"
	})
	b.eventuallyWait(t, 1)
	server.Kill()
	require.NoError(t, server.Start(t.Context()))
	// The same version again, but another operation.
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		r := b.do(t, op(counter.Set, "a", 7))[0]
		return r.Err == nil, "Redis does not answer"
	})
	b.flush(t)

	require.False(t, receive(t, result).Counter.Synced)
}

func TestDeleteCanBeWaitedFor(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.do(t, op(counter.Set, "a", 1))
	result := b.waiting(t, op(counter.Delete, "a", 0), writepath.Options{})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return !b.do(t, op(counter.Get, "a", 0))[0].Counter.Exists, "not deleted"
	})
	b.flush(t)
	require.True(t, receive(t, result).Counter.Synced)
	require.NoError(t, receive(t, b.waiting(t, op(counter.Delete, "never", 0), writepath.Options{})).Err, "at once")
}

func TestStopWaitingEndsAllWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	result := b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})
	b.eventuallyDirty(t, 1)
	b.service.StopWaiting()
	require.False(t, receive(t, result).Counter.Synced)
	require.False(t, receive(t, b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})).Counter.Synced, "later ones too")
}

func TestTooManyWaitsAreRefusedBeforeTheWrite(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ops := make([]counter.Operation, 100_001)
	for i := range ops {
		ops[i] = op(counter.Increment, "a", 1)
	}
	for _, r := range b.service.Do(t.Context(), ops, writepath.Options{Wait: time.Second})[:10] {
		require.Equal(t, counter.CodeOverloaded, counter.CodeOf(r.Err))
	}
	require.False(t, b.do(t, op(counter.Get, "a", 0))[0].Counter.Exists)
	require.NoError(t, receive(t, b.waiting(t, op(counter.Get, "none", 0), writepath.Options{})).Err, "the reservation was released")
}
