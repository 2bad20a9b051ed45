package worker_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// lostTail is a counter whose Redis loses its latest writes: it restarts with before, but without lost.
type lostTail struct {
	blind   bool // Postgres has value 100, version 1; Redis has no entry, and before is written blindly
	unsaved bool // before is not flushed when the snapshot is taken
	before  []counter.Operation
	lost    []counter.Operation // flushed, and then lost by Redis
	after   []counter.Operation // written after the restart
	value   int64
	version int64
	deleted bool
}

// lostTails returns the cases. The key "" stands for the key of the case.
func lostTails() map[string]lostTail {
	plus := func(n int) []counter.Operation {
		ops := make([]counter.Operation, n)
		for i := range ops {
			ops[i] = increment("", 1)
		}
		return ops
	}
	start := []counter.Operation{set("", 100)}
	cases := make(map[string]lostTail)
	for _, unsaved := range []bool{false, true} {
		add := func(name string, c lostTail) {
			c.before, c.unsaved = start, unsaved
			cases[fmt.Sprintf("%s, unsaved %v", name, unsaved)] = c
		}
		add("three more", lostTail{lost: plus(5), after: plus(3), value: 108, version: 9})
		add("as many more", lostTail{lost: plus(5), after: plus(5), value: 110, version: 11})
		add("past it", lostTail{lost: plus(5), after: plus(10), value: 115, version: 16})
		add("the same sum by another way", lostTail{
			lost: plus(5), after: []counter.Operation{increment("", 5)}, value: 110, version: 7,
		})
		add("set", lostTail{lost: plus(5), after: []counter.Operation{set("", 7), increment("", 1)}, value: 8, version: 8})
		add("more and set", lostTail{lost: plus(5), after: []counter.Operation{increment("", 1), set("", 7)}, value: 7, version: 8})
		add("deleted", lostTail{lost: plus(5), after: []counter.Operation{del("")}, version: 7, deleted: true})
		add("deleted and more", lostTail{lost: plus(5), after: []counter.Operation{del(""), increment("", 4)}, value: 4, version: 8})
		add("a lost set", lostTail{lost: []counter.Operation{set("", 500)}, after: plus(3), value: 503, version: 5})
		add("a lost delete", lostTail{lost: []counter.Operation{del("")}, after: plus(3), value: 3, version: 5})
	}
	cases["nothing more, unsaved"] = lostTail{before: start, unsaved: true, lost: plus(5), value: 105, version: 6}
	cases["nothing more, a lost delete, unsaved"] = lostTail{
		before: start, unsaved: true, lost: []counter.Operation{del("")}, version: 2, deleted: true,
	}
	for name, c := range map[string]lostTail{
		"three more":              {lost: plus(2), after: plus(3), value: 110, version: 1 + 5 + 2 + 3},
		"past it":                 {lost: plus(2), after: plus(30), value: 137, version: 1 + 5 + 2 + 30},
		"nothing more":            {lost: plus(2), value: 107, version: 1 + 5 + 2},
		"nothing lost, more":      {after: plus(3), value: 108, version: 1 + 5 + 3},
		"set":                     {lost: plus(2), after: []counter.Operation{set("", 7), increment("", 1)}, value: 8, version: 1 + 5 + 2 + 2},
		"a lost set":              {lost: []counter.Operation{set("", 50)}, after: plus(3), value: 53, version: 1 + 5 + 1 + 3},
		"a lost delete, and more": {lost: []counter.Operation{del("")}, after: plus(3), value: 3, version: 1 + 5 + 1 + 3},
	} {
		c.blind, c.unsaved, c.before = true, true, plus(5)
		cases["blind, "+name] = c
	}
	return cases
}

func (c lostTail) ops(name string, ops []counter.Operation) []counter.Operation {
	own := make([]counter.Operation, len(ops))
	for i, op := range ops {
		op.Key = counter.Key(name)
		own[i] = op
	}
	return own
}

// write waits for a starting Redis, and carries out operations.
func (b *testBundle) write(t *testing.T, blind bool, ops []counter.Operation) {
	t.Helper()
	for _, r := range b.service.Do(t.Context(), ops, writepath.Options{Minimal: blind}) {
		require.NoError(t, r.Err)
	}
}

// before brings every case to the point of its snapshot; lose writes what will be lost.
func (b *testBundle) before(t *testing.T, cases map[string]lostTail) {
	t.Helper()
	for name, c := range cases {
		if c.blind {
			b.exec(t, `INSERT INTO counters (key, value, version, updated_at) VALUES ($1, 100, 1, now())`, name)
		} else if !c.unsaved {
			b.write(t, false, c.ops(name, c.before))
		}
	}
	b.drainAll(t)
	for name, c := range cases {
		if c.unsaved {
			b.write(t, c.blind, c.ops(name, c.before))
		}
	}
}

func (b *testBundle) lose(t *testing.T, cases map[string]lostTail) {
	t.Helper()
	for name, c := range cases {
		if len(c.lost) > 0 {
			b.write(t, c.blind, c.ops(name, c.lost))
			b.drainAll(t)
		}
	}
}

// after writes to the restarted Redis, and requires that only unsynced writes are lost.
func (b *testBundle) after(t *testing.T, cases map[string]lostTail) {
	t.Helper()
	reconciled := 0
	for name, c := range cases {
		b.write(t, c.blind, c.ops(name, c.after))
		if len(c.lost) > 0 {
			reconciled++
		}
	}
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		b.drainAll(t)
		backlog := b.backlog(t)
		return backlog.Dirty == 0 && backlog.Dead == 0, fmt.Sprintf("%+v", backlog)
	})
	for name, c := range cases {
		want := counter.Row{Key: counter.Key(name), Value: c.value, Version: c.version, Deleted: c.deleted}
		row, _ := b.row(t, want.Key)
		require.Equal(t, want, row, name)
		got := b.do(t, get(want.Key))[0].Counter
		require.Equal(t, want.Value, got.Value, name)
		require.Equal(t, want.Version, got.Version, name)
		require.Equal(t, !want.Deleted, got.Exists, name)
		require.True(t, got.Synced, name)
	}
	elsewhere := 0 // repaired by the rebase of blind writes, or by the check at the first use of a clean entry
	for _, c := range cases {
		if (c.blind || !c.unsaved) && len(c.lost) > 0 {
			elsewhere++
		}
	}
	families, err := b.registry.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	require.NoError(t, testutil.GatherAndCompare(b.registry, strings.NewReader(fmt.Sprintf(
		`# HELP afterwrite_reconciled_keys_total Keys repaired because Redis had lost writes that Postgres has.
# TYPE afterwrite_reconciled_keys_total counter
afterwrite_reconciled_keys_total %d
`, reconciled-elsewhere)), "afterwrite_reconciled_keys_total"))
}

func TestRestartFromAnOlderSnapshotLosesOnlyUnsyncedWrites(t *testing.T) {
	t.Parallel()
	cases := lostTails()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	postgres := localtest.PostgresURL(t, migrate)
	b := setupOn(t, server.URL(), postgres, nil)
	b.before(t, cases)
	require.NoError(t, b.redis.Save(context.Background()).Err())
	b.lose(t, cases)

	server.Kill()
	require.NoError(t, server.Start(t.Context()))

	setupOn(t, server.URL(), postgres, nil).after(t, cases)
}

func TestPromotionOfALaggingReplicaLosesOnlyUnsyncedWrites(t *testing.T) {
	t.Parallel()
	cases := lostTails()
	primary := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--repl-diskless-sync-delay", "0"}})
	u, err := url.Parse(primary.URL())
	require.NoError(t, err)
	password, _ := u.User.Password()
	replica := localtest.OwnRedis(t, local.RedisOptions{Args: []string{
		"--replicaof", u.Hostname() + " " + u.Port(), "--masterauth", password,
	}})
	postgres := localtest.PostgresURL(t, migrate)
	b := setupOn(t, primary.URL(), postgres, nil)
	b.before(t, cases)
	require.NoError(t, b.redis.Set(context.Background(), "marker", "1", 0).Err())
	second := setupOn(t, replica.URL(), postgres, nil)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		err := second.redis.Get(context.Background(), "marker").Err()
		return err == nil, fmt.Sprint("the replica has no marker yet: ", err)
	})
	require.NoError(t, second.redis.Do(context.Background(), "REPLICAOF", "127.0.0.1", "1").Err()) // it receives no more writes
	b.lose(t, cases)

	primary.Kill()
	require.NoError(t, second.redis.Do(context.Background(), "REPLICAOF", "NO", "ONE").Err())

	second.after(t, cases)
}

// FLUSHALL during a flush, whose upsert lands after the counter has continued from the older row.
func TestFlushallLosesOnlyUnsyncedWrites(t *testing.T) {
	t.Parallel()
	b := setup(t, nil)
	b.do(t, set("a", 100), set("b", 100))
	b.drainAll(t)
	b.do(t, increment("a", 5), increment("b", 5))
	late := b.read(t, "a")
	require.NoError(t, b.redis.FlushDB(context.Background()).Err())
	require.Equal(t, int64(103), b.do(t, increment("a", 3))[0].Counter.Value)
	require.Equal(t, int64(103), b.do(t, increment("b", 3))[0].Counter.Value)
	b.upsert(t, late)

	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		_, left := b.drainAll(t)
		return left == 0, fmt.Sprintf("%d left", left)
	})

	b.requireRow(t, counter.Row{Key: "a", Value: 108, Version: 3})
	b.requireRow(t, counter.Row{Key: "b", Value: 103, Version: 2})
}

// A flush from before the restart may reach Postgres after a flush from after it.
func TestLateFlushOfALostTailDoesNotReplaceLaterWrites(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	postgres := localtest.PostgresURL(t, migrate)
	b := setupOn(t, server.URL(), postgres, nil)
	b.do(t, set("a", 100))
	b.drainAll(t)
	require.NoError(t, b.redis.Save(context.Background()).Err())
	b.do(t, increment("a", 1), increment("a", 1), increment("a", 1))
	late := b.read(t, "a")
	server.Kill()
	require.NoError(t, server.Start(t.Context()))
	b = setupOn(t, server.URL(), postgres, nil)
	b.do(t, increment("a", 10))
	b.drainAll(t)

	ahead := b.upsert(t, late)

	require.Len(t, ahead, 1)
	b.requireRow(t, counter.Row{Key: "a", Value: 110, Version: 2})
}

// Redis loses its tail and accepts writes. Before those are flushed it restarts again, without losing anything.
func TestSecondRestartBeforeTheFlushLosesNothingMore(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	postgres := localtest.PostgresURL(t, migrate)
	b := setupOn(t, server.URL(), postgres, nil)
	restart := func() {
		server.Kill()
		require.NoError(t, server.Start(t.Context()))
		b = setupOn(t, server.URL(), postgres, nil)
	}
	b.do(t, set("few", 100), set("many", 100), set("set", 100), set("none", 100))
	b.drainAll(t)
	require.NoError(t, b.redis.Save(context.Background()).Err())
	b.do(t, increment("few", 5), increment("many", 1), increment("many", 1), increment("many", 3), increment("set", 5))
	b.drainAll(t)
	restart()
	b.do(t, increment("few", 10), increment("many", 10), set("set", 7), increment("none", 10))
	require.NoError(t, b.redis.Save(context.Background()).Err())
	restart()
	b.do(t, increment("few", 20), increment("many", 20), increment("set", 20), increment("none", 20))

	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		_, left := b.drainAll(t)
		return left == 0, fmt.Sprintf("%d left", left)
	})

	b.requireRow(t, counter.Row{Key: "few", Value: 135, Version: 4})
	b.requireRow(t, counter.Row{Key: "many", Value: 135, Version: 6})
	b.requireRow(t, counter.Row{Key: "set", Value: 27, Version: 4})
	b.requireRow(t, counter.Row{Key: "none", Value: 130, Version: 3})
}
