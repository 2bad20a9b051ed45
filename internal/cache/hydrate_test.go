package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestHydrateRefusesARowReadBeforeACommit(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// A slow reader has found the key cold and read version 1 from Postgres.
	b.token(t, "a")
	stale := cache.Base{
		Key: "a", Found: true, Row: counter.Row{Key: "a", Value: 10, Version: 1},
		Token: b.do(t, get("a"))[0].Token,
	}
	// Meanwhile another caller hydrates it, writes, flushes version 2, and the clean entry is evicted.
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: stale.Row, Token: stale.Token}, cache.Hydrated)
	b.do(t, increment("a", 1))
	b.flush(t, "a")
	require.NoError(t, b.redis.Del(context.Background(), b.entryKey("a")).Err())

	b.hydrate(t, stale, cache.Stale)
	require.Empty(t, b.entry(t, "a"))
}

// Each of these makes a key clean or removes a clean entry: rows read before may be older.
func TestTokenIsStaleOnceAKeyOfTheShardHasBecomeClean(t *testing.T) {
	t.Parallel()
	row := counter.Row{Key: "k", Value: 1000, Version: 1000}
	for name, step := range map[string]func(t *testing.T, b *testBundle, key counter.Key){
		"commit": func(t *testing.T, b *testBundle, key counter.Key) {
			t.Helper()
			b.do(t, increment(key, 1))
			b.flush(t, key)
		},
		"settle": func(t *testing.T, b *testBundle, key counter.Key) {
			t.Helper()
			b.do(t, increment(key, 1))
			b.setAside(t, time.Minute, key)
			b.settle(t, b.read(t, key))
			require.False(t, b.dirty(t, key))
		},
		"adopt": func(t *testing.T, b *testBundle, key counter.Key) {
			t.Helper()
			b.do(t, increment(key, 1))
			e := b.read(t, key)
			b.reconcile(t, cache.Conflict{Entry: e, Row: counter.Row{Key: key, Value: 9, Version: 9, Lineage: e.Lineage}, Adopt: true}, cache.Reconciled)
		},
		"remove": func(t *testing.T, b *testBundle, key counter.Key) {
			t.Helper()
			b.bury(t, key)
			b.remove(t, b.read(t, key), cache.DiscardDone)
		},
		"drop": func(t *testing.T, b *testBundle, key counter.Key) {
			t.Helper()
			require.True(t, b.repair(t, cache.DropStale, b.inspect(t, key)[0]))
		},
		"restart": func(t *testing.T, b *testBundle, _ counter.Key) {
			t.Helper()
			b.restart(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			keys := b.alike(3)
			b.warm(t, keys[0])
			token := b.token(t, keys[1])
			b.hydrate(t, cache.Base{Key: keys[1], Found: true, Row: row, Token: token}, cache.Hydrated)

			step(t, b, keys[0])

			b.hydrate(t, cache.Base{Key: keys[2], Found: true, Row: row, Token: token}, cache.Stale)
			require.Empty(t, b.entry(t, keys[2]))
			b.blind(t, increment(keys[2], 1))
			b.hydrate(t, cache.Base{Key: keys[2], Found: true, Row: row, Token: token}, cache.Stale)
			require.Equal(t, map[string]string{"v": "1", "n": "1", "u": "1"}, b.entry(t, keys[2]))
			b.hydrate(t, cache.Base{Key: keys[1], Found: true, Row: row, Token: token}, cache.Hydrated) // the entry is complete
			b.hydrate(t, cache.Base{Key: keys[2], Found: true, Row: row}, cache.Hydrated)
			require.Equal(t, map[string]string{"v": "1001", "n": "1001"}, b.entry(t, keys[2]))
		})
	}
}

// A write makes no key clean. If it made tokens stale, no key of a busy shard could be hydrated.
func TestTokenStaysValidAcrossWrites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys[0])
	token := b.token(t, keys[1])
	b.do(t, increment(keys[0], 1), set(keys[0], 7), del(keys[0]))
	b.hydrate(t, cache.Base{Key: keys[1], Token: token}, cache.Hydrated)
}

func TestHydrateLeavesCompleteEntriesAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", 5))
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: counter.Row{Value: 99, Version: 99}}, cache.Hydrated)
	require.Equal(t, map[string]string{"v": "5", "n": "1"}, b.entry(t, "a"))
}

func TestHydrateAddsTheBaseToBlindWritesOnce(t *testing.T) {
	t.Parallel()
	base := counter.Row{Value: 100, Version: 10}
	tombstone := counter.Row{Value: 0, Version: 10, Deleted: true}
	cases := map[string]struct {
		ops  []counter.Operation
		base cache.Base
		want map[string]string
	}{
		"increments on a row": {
			[]counter.Operation{increment("a", 2), increment("a", 3)},
			cache.Base{Key: "a", Row: base, Found: true},
			map[string]string{"v": "105", "n": "12"},
		},
		"increments on nothing": {
			[]counter.Operation{increment("a", 2)},
			cache.Base{Key: "a"},
			map[string]string{"v": "2", "n": "1"},
		},
		"increments on a tombstone": {
			[]counter.Operation{increment("a", 2)},
			cache.Base{Key: "a", Row: tombstone, Found: true},
			map[string]string{"v": "2", "n": "11"},
		},
		"a set on a row": {
			[]counter.Operation{increment("a", 2), set("a", 7), increment("a", 1)},
			cache.Base{Key: "a", Row: base, Found: true},
			map[string]string{"v": "8", "n": "13"},
		},
		"a delete on a row": {
			[]counter.Operation{del("a")},
			cache.Base{Key: "a", Row: base, Found: true},
			map[string]string{"v": "0", "n": "11", "x": "1"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.blind(t, c.ops...)
			b.hydrate(t, c.base, cache.Hydrated)
			b.hydrate(t, c.base, cache.Hydrated)
			require.Equal(t, c.want, b.entry(t, "a"))
			require.True(t, b.dirty(t, "a"))
		})
	}
}

func TestHydrateReportsOverflowOfBaseAndBlindWrites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.blind(t, increment("a", 1<<62), increment("a", 1<<61))
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: counter.Row{Value: 1 << 62, Version: 1}}, cache.BaseOverflow)
	require.Equal(t, map[string]string{"v": "6917529027641081856", "n": "2", "u": "1"}, b.entry(t, "a"))
}
