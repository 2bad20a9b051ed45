package worker_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// restartable returns a bundle whose Redis can be restarted.
func restartable(t *testing.T, environment map[string]string) (b *testBundle, restart func() *testBundle) {
	t.Helper()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	postgres := localtest.PostgresURL(t, migrate)
	return setupOn(t, server.URL(), postgres, environment), func() *testBundle {
		server.Kill()
		require.NoError(t, server.Start(t.Context()))
		return setupOn(t, server.URL(), postgres, environment)
	}
}

// clean drains until nothing is dirty: after a conflict, the next drain flushes the merged entry.
func (b *testBundle) clean(t *testing.T) {
	t.Helper()
	for range 3 {
		b.drainAll(t)
	}
	require.Zero(t, b.backlog(t).Dirty)
}

// Postgres has a part of a lineage, the commit is late, and Redis restarts without loss.
func TestRestartAfterAPartOfALineageWasFlushed(t *testing.T) {
	t.Parallel()
	b, restart := restartable(t, nil)
	b.do(t, increment("a", 1), increment("a", 1))
	b.upsert(t, b.read(t, "a"))
	b.do(t, increment("a", 1))
	require.NoError(t, b.redis.Save(context.Background()).Err())
	b = restart()
	b.do(t, increment("a", 1))

	b.clean(t)

	b.requireRow(t, counter.Row{Key: "a", Value: 4, Version: 4})
}

// A flush of a blind lineage from before a restart lands between the rebase of the next lineage and its upsert.
func TestLateFlushOfABlindLineageBetweenRebaseAndUpsert(t *testing.T) {
	t.Parallel()
	b, restart := restartable(t, nil)
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at) VALUES ('a', 100, 1, now())`)
	shard := b.cache.Shard("a")
	blind := []counter.Operation{increment("a", 1)}
	rebase := func() cache.Entry {
		snapshot, err := b.cache.Read(t.Context(), shard, []counter.Key{"a"})
		require.NoError(t, err)
		rows, err := b.store.Read(t.Context(), []counter.Key{"a"})
		require.NoError(t, err)
		base := cache.Base{Key: "a", Row: rows["a"], Found: true, Token: snapshot.Token}
		done, rebased, err := b.cache.Rebase(t.Context(), []cache.Base{base})
		require.NoError(t, err)
		require.Equal(t, cache.Hydrated, done[0])
		return rebased[0]
	}
	b.write(t, true, blind)
	require.NoError(t, b.redis.Save(context.Background()).Err())
	late := rebase() // its upsert is still in flight
	b = restart()
	b.write(t, true, blind)
	rebase()
	b.upsert(t, late)

	b.clean(t)

	b.requireRow(t, counter.Row{Key: "a", Value: 102, Version: 3})
}

// An operator restores the data of an emptied Redis after counters have continued from Postgres. Its unflushed writes reach Postgres,
// except for counters that were written since: their newer history stays.
func TestRestoredDataIsFlushedExceptOverNewerWrites(t *testing.T) {
	t.Parallel()
	b, restart := restartable(t, nil)
	b.do(t, set("idle", 100), set("busy", 100))
	b.drainAll(t)
	b.do(t, increment("idle", 5), increment("busy", 5)) // not flushed before the loss
	require.NoError(t, b.redis.Save(context.Background()).Err())
	require.NoError(t, b.redis.FlushDB(context.Background()).Err())
	b.do(t, increment("busy", 3))
	b.clean(t)

	b = restart()
	b.clean(t)

	b.requireRow(t, counter.Row{Key: "idle", Value: 105, Version: 2})
	b.requireRow(t, counter.Row{Key: "busy", Value: 103, Version: 2})
}

// The rows are from a version of afterwrite without lineages.
func TestBlindWritesOnRowsWithoutALineageAreKept(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at) VALUES ('gone', 100, 1, now())`)
	b.exec(t, `INSERT INTO counters (key, value, version, deleted_at, updated_at) VALUES ('back', 0, 2, now(), now())`)
	b.write(t, true, []counter.Operation{del("gone"), increment("back", 5)})

	b.clean(t)

	b.requireRow(t, counter.Row{Key: "gone", Version: 2, Deleted: true})
	b.requireRow(t, counter.Row{Key: "back", Value: 5, Version: 3})
}
