package writepath_test

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// waitLong is longer than any of these tests takes.
const waitLong = time.Minute

// setupPatient is setup with a Postgres that is always fast enough.
func setupPatient(t *testing.T) *testBundle {
	t.Helper()
	return setupWith(t, localtest.RedisURL(t), localtest.PostgresURL(t, migrate), waitLong)
}

// flush does what a worker does with everything that is dirty, in the shards given, or all.
func (b *testBundle) flush(t *testing.T) {
	t.Helper()
	for shard := range counter.Shard(4) {
		for {
			p := b.peekShard(t, shard)
			if len(p.Entries) == 0 {
				break
			}
			b.commit(t, p)
		}
	}
}

func (b *testBundle) peekShard(t *testing.T, shard counter.Shard) cache.Peeked {
	t.Helper()
	p, err := b.cache.PeekOldest(t.Context(), shard, 10_000, 0, "test", time.Minute)
	require.NoError(t, err)
	return p
}

// commit upserts and acks what was peeked; a base that is unknown is brought in first.
func (b *testBundle) commit(t *testing.T, p cache.Peeked) {
	t.Helper()
	rows := make([]counter.Row, 0, len(p.Entries))
	acked := make([]cache.Committed, 0, len(p.Entries))
	for _, e := range p.Entries {
		if e.BaseUnknown {
			found, err := b.store.Read(t.Context(), []counter.Key{e.Key})
			require.NoError(t, err)
			row, ok := found[e.Key]
			_, err = b.cache.Hydrate(t.Context(), []cache.Base{{Key: e.Key, Row: row, Found: ok, Generation: p.Generation}})
			require.NoError(t, err)
			continue // it is flushed in the next round
		}
		rows = append(rows, e.Row)
		acked = append(acked, cache.Committed{Key: e.Key, Version: e.Version, Life: e.Life})
	}
	b.stored(t, rows...)
	_, err := b.cache.Ack(t.Context(), p.Shard, p.At, acked)
	require.NoError(t, err)
}

// waiting begins an operation that waits, and returns where its result comes.
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
		dirty, err := b.cache.DirtyCount(t.Context())
		require.NoError(t, err)
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

func TestAWriteThatWaitsIsAnsweredWhenPostgresHasIt(t *testing.T) {
	t.Parallel()
	b := setupPatient(t)
	result := b.waiting(t, op(counter.Increment, "a", 5), writepath.Options{})
	b.eventuallyDirty(t, 1)
	requireNone(t, result)

	b.flush(t)

	require.Equal(t, counter.Counter{Key: "a", Value: 5, Version: 1, Exists: true, Known: true, Synced: true, SyncedVersion: 1},
		receive(t, result).Counter)
}

func TestAWaitThatIsOverSaysSo(t *testing.T) {
	t.Parallel()
	b := setupPatient(t)
	r := receive(t, b.waiting(t, op(counter.Set, "a", 5), writepath.Options{Wait: 20 * time.Millisecond}))
	require.NoError(t, r.Err)
	require.False(t, r.Counter.Synced)
	require.Zero(t, r.Counter.SyncedVersion)
	require.Equal(t, int64(5), r.Counter.Value)
}

func TestAReadWaitsForItsVersion(t *testing.T) {
	t.Parallel()
	b := setupPatient(t)
	b.do(t, op(counter.Set, "a", 5))
	now := b.waiting(t, op(counter.Get, "a", 0), writepath.Options{})
	later := b.waiting(t, op(counter.Get, "a", 0), writepath.Options{Version: 3})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { return b.hints.count("a") >= 2, "the workers were not told" })

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

// A counter that is written all the time is never clean; what was committed of it is noted.
func TestAWaitForACounterThatIsWrittenMeanwhileEndsWithTheFlush(t *testing.T) {
	t.Parallel()
	b := setupPatient(t)
	b.do(t, op(counter.Set, "a", 1))
	result := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return b.do(t, op(counter.Get, "a", 0))[0].Counter.Version == 2, "not written"
	})
	shard := b.cache.Shard("a")
	p := b.peekShard(t, shard)
	b.do(t, op(counter.Increment, "a", 1))
	newer := b.waiting(t, op(counter.Get, "a", 0), writepath.Options{})

	b.commit(t, p)

	r := receive(t, result).Counter
	require.Equal(t, counter.Counter{Key: "a", Value: 2, Version: 2, Exists: true, Known: true, Synced: true, SyncedVersion: 2}, r)
	read := receive(t, b.waiting(t, op(counter.Get, "a", 0), writepath.Options{Version: 2})).Counter
	require.Equal(t, int64(3), read.Version)
	require.Equal(t, int64(2), read.SyncedVersion, "of an older version than the one that is shown")
	requireNone(t, newer)
	b.flush(t)
	require.Equal(t, int64(3), receive(t, newer).Counter.SyncedVersion)
	text, err := b.redis.Get(t.Context(), "{aw:"+shard.String()+"}:c:a").Result()
	require.NoError(t, err)
	require.Equal(t, "3 3", text, "a clean entry keeps no notes")
}

func TestAWriteOnAnUnknownBaseCanBeWaitedFor(t *testing.T) {
	t.Parallel()
	b := setupPatient(t)
	b.stored(t, counter.Row{Key: "a", Value: 40, Version: 9})
	result := b.waiting(t, op(counter.Increment, "a", 2), writepath.Options{Minimal: true})
	b.eventuallyDirty(t, 1)
	b.flush(t)
	r := receive(t, result).Counter
	require.True(t, r.Synced)
	require.False(t, r.Known)
	require.Equal(t, int64(10), r.SyncedVersion)
}

func TestAWaitForWhatHasLeftRedisAsksPostgres(t *testing.T) {
	t.Parallel()
	b := setupPatient(t)
	b.do(t, op(counter.Set, "a", 1), op(counter.Set, "lost", 1))
	b.flush(t)
	lost := b.waiting(t, op(counter.Increment, "lost", 1), writepath.Options{Wait: 3 * time.Second})
	kept := b.waiting(t, op(counter.Increment, "a", 1), writepath.Options{})
	b.eventuallyDirty(t, 2)
	// The ack is without its message, and then both entries are gone: one expired, and one was lost before its flush.
	b.stored(t, counter.Row{Key: "a", Value: 2, Version: 2})
	require.NoError(t, b.redis.FlushDB(t.Context()).Err())

	require.True(t, receive(t, kept).Counter.Synced)
	require.False(t, receive(t, lost).Counter.Synced, "Postgres has an older version")
}

func TestARestartOfRedisEndsWaitsWithoutAPromise(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupWith(t, server.URL(), localtest.PostgresURL(t, migrate), waitLong)
	result := b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})
	b.eventuallyDirty(t, 1)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { // it has been looked at
		n, err := b.redis.PubSubNumSub(t.Context(), "aw:acks").Result()
		return err == nil && n["aw:acks"] == 1, "not subscribed"
	})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { return writepath.Looked(b.service) == 1, "not looked at" })
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
	b := setupPatient(t)
	b.do(t, op(counter.Set, "a", 1))
	result := b.waiting(t, op(counter.Delete, "a", 0), writepath.Options{})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return !b.do(t, op(counter.Get, "a", 0))[0].Counter.Exists, "not deleted"
	})
	b.flush(t)
	require.True(t, receive(t, result).Counter.Synced)
	require.NoError(t, receive(t, b.waiting(t, op(counter.Delete, "never", 0), writepath.Options{})).Err, "at once")
}

func TestStoppingAnswersAllThatWait(t *testing.T) {
	t.Parallel()
	b := setupPatient(t)
	result := b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})
	b.eventuallyDirty(t, 1)
	b.service.StopWaiting()
	require.False(t, receive(t, result).Counter.Synced)
	require.False(t, receive(t, b.waiting(t, op(counter.Set, "a", 1), writepath.Options{})).Counter.Synced, "later ones too")
}

func TestTooManyWaitsAreRefusedBeforeTheyWrite(t *testing.T) {
	t.Parallel()
	b := setupPatient(t)
	ops := make([]counter.Operation, 100_001)
	for i := range ops {
		ops[i] = op(counter.Increment, "a", 1)
	}
	for _, r := range b.service.Do(t.Context(), ops, writepath.Options{Wait: time.Second})[:10] {
		require.Equal(t, counter.CodeOverloaded, counter.CodeOf(r.Err))
	}
	require.False(t, b.do(t, op(counter.Get, "a", 0))[0].Counter.Exists)
	require.NoError(t, receive(t, b.waiting(t, op(counter.Get, "none", 0), writepath.Options{})).Err, "the room was given back")
}

// The promise of the README: many waiters cost one subscription and one look for each message, not polling each.
func TestTenThousandWaitersShareOneSubscriptionAndAreAnsweredByTheNextFlush(t *testing.T) {
	t.Parallel()
	const callers, keys = 10_000, 1_000
	server := localtest.OwnRedis(t, local.RedisOptions{}) // for what it counts
	b := setupWith(t, server.URL(), localtest.PostgresURL(t, migrate), waitLong)
	for i := range keys {
		b.do(t, op(counter.Set, counter.Key(strconv.Itoa(i)), 1))
	}
	var synced atomic.Int64
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			key := counter.Key(strconv.Itoa(i % keys))
			r := b.service.Do(context.Background(), []counter.Operation{op(counter.Get, key, 0)}, writepath.Options{Wait: waitLong})[0]
			if r.Err == nil && r.Counter.Synced {
				synced.Add(1)
			}
		})
	}
	localtest.Eventually(t, 60*time.Second, func() (bool, string) {
		return writepath.Looked(b.service) == callers, strconv.Itoa(writepath.Looked(b.service)) + " wait"
	})
	subscribers, err := b.redis.PubSubNumSub(t.Context(), "aw:acks").Result()
	require.NoError(t, err)
	require.Equal(t, int64(1), subscribers["aw:acks"])
	require.Zero(t, synced.Load())
	calls := scriptCalls(t, b)

	started := time.Now()
	b.flush(t)
	group.Wait()

	require.Equal(t, int64(callers), synced.Load())
	t.Logf("%d waiters on %d keys: answered %s after the flush began, with %d script calls", callers, keys, time.Since(started),
		scriptCalls(t, b)-calls)
	require.Less(t, scriptCalls(t, b)-calls, callers/10, "one look for many, and their reads share calls")
}

// scriptCalls is how often Redis has run a script since its start.
func scriptCalls(t *testing.T, b *testBundle) int {
	t.Helper()
	info, err := b.redis.Info(context.Background(), "commandstats").Result()
	require.NoError(t, err)
	_, rest, _ := strings.Cut(info, "cmdstat_evalsha:calls=")
	number, _, _ := strings.Cut(rest, ",")
	n, err := strconv.Atoi(number)
	require.NoError(t, err)
	return n
}
