package cache_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// postgres holds rows, and applies the guard of Store.Upsert.
type postgres map[counter.Key]counter.Row

// upsert writes a row, or returns the row that is ahead of it.
func (p postgres) upsert(row counter.Row) (ahead counter.Row, kept bool) {
	has, found := p[row.Key]
	limit := row.Base + 1
	if has.Lineage == row.Lineage {
		limit = row.Version
	}
	if found && has.Version >= limit {
		return has, true
	}
	row = row.Stored()
	p[row.Key] = row
	return row, false
}

// drain flushes until only set-aside keys are dirty, and returns how many entries were reconciled.
func (b *testBundle) drain(t *testing.T, p postgres) (reconciled int) {
	t.Helper()
	for range 10 {
		idle := true
		for s := range b.cache.Shards() {
			e := b.take(t, counter.Shard(s), cache.Taking{})
			if e.State != cache.Nothing {
				idle = false
				reconciled += b.drainEpoch(t, p, e)
			}
		}
		if idle {
			return reconciled
		}
	}
	t.Fatal("there is always something to flush")
	return 0
}

func (b *testBundle) drainEpoch(t *testing.T, p postgres, e *cache.Epoch) (reconciled int) {
	t.Helper()
	keys := b.keysOf(t, e)
	snapshot, err := b.cache.Read(t.Context(), e.Shard, keys)
	require.NoError(t, err)
	var bases []cache.Base
	for _, entry := range snapshot.Entries {
		if entry.BaseUnknown {
			row, found := p[entry.Key]
			bases = append(bases, cache.Base{Key: entry.Key, Row: row, Found: found, Token: snapshot.Token})
		}
	}
	done, rebased, err := b.cache.Rebase(t.Context(), bases)
	require.NoError(t, err)
	require.Len(t, rebased, len(bases))
	for _, letter := range done {
		require.Equal(t, cache.Hydrated, letter)
	}
	for _, entry := range rebased {
		require.Equal(t, b.read(t, entry.Key), entry, "the returned entry is the current one")
	}
	var conflicts []cache.Conflict
	for _, key := range keys {
		entry := b.read(t, key)
		if entry.Missing || entry.Corrupt || entry.Aside || !entry.Dirty(snapshot.Watermark) {
			continue
		}
		if row, kept := p.upsert(entry.Row); kept && row.Lineage != entry.Lineage || kept && row.Version > entry.Version {
			conflicts = append(conflicts, cache.Conflict{Entry: entry, Row: row, Adopt: row.Lineage == entry.Lineage})
		}
	}
	letters, err := b.cache.Reconcile(t.Context(), e.Shard, conflicts)
	require.NoError(t, err)
	for i, letter := range letters {
		require.Equal(t, cache.Reconciled, letter, conflicts[i].Entry.Key)
	}
	require.True(t, b.commit(t, e))
	return len(conflicts)
}

// reconcile reconciles one entry.
func (b *testBundle) reconcile(t *testing.T, c cache.Conflict, want cache.Reconciliation) {
	t.Helper()
	got, err := b.cache.Reconcile(t.Context(), b.cache.Shard(c.Entry.Key), []cache.Conflict{c})
	require.NoError(t, err)
	require.Equal(t, []cache.Reconciliation{want}, got)
}

// dumped is a key of Redis in the form of DUMP.
type dumped struct {
	value string
	ttl   time.Duration
}

// snapshot returns all keys of Redis.
func (b *testBundle) snapshot(t *testing.T) map[string]dumped {
	t.Helper()
	names, err := b.redis.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	pipe := b.redis.Pipeline()
	values, ttls := make([]*redis.StringCmd, len(names)), make([]*redis.DurationCmd, len(names))
	for i, name := range names {
		values[i], ttls[i] = pipe.Dump(t.Context(), name), pipe.PTTL(t.Context(), name)
	}
	_, err = pipe.Exec(t.Context())
	require.NoError(t, err)
	all := make(map[string]dumped, len(names))
	for i, name := range names {
		all[name] = dumped{values[i].Val(), max(0, ttls[i].Val())}
	}
	return all
}

// contents returns the values of all keys of Redis, without TTLs.
func (b *testBundle) contents(t *testing.T) map[string]string {
	t.Helper()
	values := make(map[string]string)
	for name, d := range b.snapshot(t) {
		values[name] = d.value
	}
	return values
}

// rollback restores a snapshot, like a restart from an older one.
func (b *testBundle) rollback(t *testing.T, to map[string]dumped) {
	t.Helper()
	pipe := b.redis.TxPipeline()
	pipe.FlushDB(t.Context())
	for name, d := range to {
		pipe.Restore(t.Context(), name, d.ttl, d.value)
	}
	_, err := pipe.Exec(t.Context())
	require.NoError(t, err)
	b.restart(t)
}
