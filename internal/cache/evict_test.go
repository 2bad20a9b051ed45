package cache_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// theFuture as Eviction.Idle selects all entries written until an hour from now.
const theFuture = -time.Hour

// evict makes one pass over all entries.
func (b *testBundle) evict(t *testing.T, e cache.Eviction) int64 {
	t.Helper()
	if e.Pace == nil {
		e.Pace = func(context.Context, int) error { return nil }
	}
	n, err := b.cache.EvictIdle(t.Context(), e)
	require.NoError(t, err)
	return n
}

// afterRead calls do once, after Redis has answered the next read of entries.
type afterRead struct{ do func() }

func (*afterRead) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a *afterRead) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		a.then(cmd)
		return err
	}
}

func (a *afterRead) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		a.then(cmds...)
		return err
	}
}

func (a *afterRead) then(cmds ...redis.Cmder) {
	if a.do != nil && slices.ContainsFunc(cmds, func(c redis.Cmder) bool { return c.Name() == "mget" }) {
		do := a.do
		a.do = nil
		do()
	}
}

func TestEvictionRemovesOnlyCleanIdleEntries(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(7)
	dirty, sealed, retrying, dead, clean, again, read := keys[0], keys[1], keys[2], keys[3], keys[4], keys[5], keys[6]
	b.warm(t, keys...)
	b.do(t, increment(clean, 1), increment(again, 1), increment(retrying, 1), increment(dead, 1))
	e := b.seal(t, clean)
	b.setAside(t, 0, retrying)
	require.NoError(t, b.cache.Bury(t.Context(), dead, cache.Dead{Reason: "no"}))
	require.True(t, b.commit(t, e))
	b.do(t, increment(sealed, 1))
	b.seal(t, sealed)
	b.do(t, increment(dirty, 1), increment(again, 1))
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey("corrupt"), "x", 0).Err())
	require.NoError(t, b.redis.HSet(t.Context(), b.entryKey("hash"), "v", "1").Err())
	require.NoError(t, b.redis.Set(t.Context(), "{aw:77}:c:stray", "1 1 0", 0).Err())
	before := b.contents(t)

	require.Zero(t, b.evict(t, cache.Eviction{Idle: time.Hour}), "all entries were written just now")
	require.Equal(t, int64(1), b.evict(t, cache.Eviction{Idle: time.Hour, Urgent: true}), "except an entry that was only read")
	require.Empty(t, b.text(t, read))
	require.Equal(t, int64(1), b.evict(t, cache.Eviction{Idle: theFuture}))

	after := b.contents(t)
	delete(before, b.entryKey(clean))
	delete(before, b.entryKey(read))
	for name := range before {
		require.Equal(t, before[name], after[name], name)
	}
	require.Len(t, after, len(before))
	require.Zero(t, b.evict(t, cache.Eviction{Idle: theFuture, Urgent: true}))
	require.True(t, b.dirty(t, dirty) && b.dirty(t, sealed) && b.dirty(t, retrying) && b.dirty(t, dead) && b.dirty(t, again))
}

func TestOnlyUrgentEvictionRemovesEntriesThatWereOnlyRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "k", Found: true, Row: counter.Row{Value: 1, Version: 1}}, cache.Hydrated)
	require.Zero(t, b.evict(t, cache.Eviction{Idle: theFuture}))
	require.Equal(t, int64(1), b.evict(t, cache.Eviction{Idle: theFuture, Urgent: true}))
	require.True(t, b.do(t, get("k"))[0].Cold)
}

func TestEntryWrittenDuringItsEvictionStays(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, b *testBundle){
		"written": func(t *testing.T, b *testBundle) {
			t.Helper()
			b.do(t, increment("k", 1))
		},
		"written and flushed": func(t *testing.T, b *testBundle) {
			t.Helper()
			b.do(t, increment("k", 1))
			b.flush(t, "k")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := localtest.RedisURL(t)
			b := setupOn(t, url)
			b.warm(t, "k")
			b.do(t, increment("k", 1))
			b.flush(t, "k")
			b.redis.AddHook(&afterRead{do: func() { change(t, setupOn(t, url)) }})

			require.Zero(t, b.evict(t, cache.Eviction{Idle: theFuture}))

			require.Equal(t, "2", b.entry(t, "k")["v"])
			require.Equal(t, int64(3), b.do(t, increment("k", 1))[0].Value)
		})
	}
}

// Redis restarts from an older snapshot, in which the same entry was still dirty.
func TestEntryThatIsDirtyAgainAfterARollbackIsNotEvicted(t *testing.T) {
	t.Parallel()
	url := localtest.RedisURL(t)
	b := setupOn(t, url)
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	dirty := b.snapshot(t)
	b.flush(t, "k")
	b.redis.AddHook(&afterRead{do: func() { setupOn(t, url).rollback(t, dirty) }})

	require.Zero(t, b.evict(t, cache.Eviction{Idle: theFuture}))

	require.True(t, b.dirty(t, "k"))
	require.Equal(t, int64(1), b.read(t, "k").Value)
}

func TestEvictedCounterIsHydratedFromPostgres(t *testing.T) {
	t.Parallel()
	b, p := setup(t), postgres{}
	b.warm(t, "k")
	b.do(t, increment("k", 5))
	b.drain(t, p)
	require.Equal(t, int64(1), b.evict(t, cache.Eviction{Idle: theFuture}))
	require.True(t, b.do(t, get("k"))[0].Cold)
	b.hydrate(t, cache.Base{Key: "k", Row: p["k"], Found: true}, cache.Hydrated)
	b.do(t, increment("k", 1))
	b.drain(t, p)
	require.Equal(t, int64(6), p["k"].Value)
	require.Equal(t, int64(2), p["k"].Version)
}

func TestEvictionIsPacedByPages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const n = 1500
	keys := b.alike(n)
	for page := range slices.Chunk(keys, cache.MaxWrites) {
		ops := make([]counter.Operation, len(page))
		for i, key := range page {
			ops[i] = increment(key, 1)
		}
		b.blind(t, ops...)
	}
	e := b.seal(t, keys[0])
	require.True(t, b.commit(t, e))
	calls, seen := 0, 0
	pace := func(_ context.Context, keys int) error {
		require.LessOrEqual(t, keys, cache.ScanPage)
		calls, seen = calls+1, seen+keys
		return nil
	}
	full := errors.New("not now")
	removed, err := b.cache.EvictIdle(t.Context(), cache.Eviction{Idle: theFuture, Pace: func(context.Context, int) error { return full }})
	require.ErrorIs(t, err, full)
	require.Zero(t, removed)

	require.Equal(t, int64(n), b.evict(t, cache.Eviction{Idle: theFuture, Pace: pace}))
	require.GreaterOrEqual(t, calls, 3)
	require.GreaterOrEqual(t, seen, n)
	require.Zero(t, b.evict(t, cache.Eviction{Idle: theFuture}))
}
