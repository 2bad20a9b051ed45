package cache_test

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestFirstWriteAfterARestartOpensANewEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.warm(t, keys[:2]...)
	before := b.do(t, increment(keys[0], 1))[0]
	old := b.meta(t, keys[0])
	require.Equal(t, before.First, number36(t, old["first"]))
	b.restart(t)

	after := b.do(t, increment(keys[1], 1))[0]

	meta := b.meta(t, keys[0])
	require.Greater(t, number36(t, meta["open"]), number36(t, old["open"]))
	require.Equal(t, meta["open"], meta["first"])
	require.Equal(t, old["incarnation"], meta["incarnation"], "it is noted")
	require.Equal(t, number36(t, meta["open"]), after.Epoch)
	require.Equal(t, after.Epoch, after.First)
	require.Greater(t, after.First, before.First)
	require.Equal(t, int64(2), after.Backlog, "the earlier keys are in it, too")

	again := b.do(t, increment(keys[1], 1))[0]
	require.Equal(t, after.First, again.First)
	require.Equal(t, meta, b.meta(t, keys[0]), "only the first write changes it")
}

// A read writes nothing, so it opens no epoch.
func TestReadAfterARestartChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.restart(t)
	before := b.contents(t)
	require.Equal(t, int64(1), b.do(t, get("a"))[0].Value)
	require.Equal(t, before, b.contents(t))
}

func TestDirtyEntryFromBeforeARestartKeepsItsEndedLineages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "k", Row: counter.Row{Value: 10, Version: 4}, Found: true}, cache.Hydrated)
	b.do(t, increment("k", 1))
	first := b.whole(t, "k")["e"]
	b.restart(t)
	b.do(t, increment("k", 2), increment("k", 3))
	second := b.whole(t, "k")["e"]
	want := map[string]string{"v": "16", "n": "7", "e": second, "b": "4", "w": "10", "p": ";" + first + ",11,5"}
	require.Equal(t, want, b.whole(t, "k"), "the base stays: Postgres may lack what the earlier lineage wrote")
	require.Equal(t, number36(t, second), b.read(t, "k").Lineage)

	b.restart(t)
	b.do(t, increment("k", 1))
	third := b.whole(t, "k")["e"]
	want = map[string]string{"v": "17", "n": "8", "e": third, "b": "4", "w": "10", "p": ";" + first + ",11,5;" + second + ",16,7"}
	require.Equal(t, want, b.whole(t, "k"))

	b.do(t, set("k", 5), increment("k", 1))
	want = map[string]string{"v": "6", "n": "10", "e": third, "b": "4", "p": ";" + first + ",set,5;" + second + ",set,7"}
	require.Equal(t, want, b.whole(t, "k"), "its value no longer depends on them")
	require.True(t, b.dirty(t, "k"))

	b.flush(t, "k")
	b.do(t, increment("k", 1))
	require.Equal(t, map[string]string{"v": "7", "n": "11", "e": b.meta(t, "k")["open"], "b": "10", "w": "6"}, b.whole(t, "k"))
}

func TestCleanEntryFromBeforeARestartBeginsAnOrdinaryLineage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "k", Row: counter.Row{Value: 10, Version: 4}, Found: true}, cache.Hydrated)
	b.do(t, increment("k", 1))
	b.flush(t, "k")
	b.restart(t)
	require.Equal(t, int64(1), b.do(t, increment("k", 1))[0].Backlog)
	require.Equal(t, map[string]string{"v": "12", "n": "6", "e": b.meta(t, "k")["open"], "b": "5", "w": "11"}, b.whole(t, "k"))
}

func TestSetAsideEntryFromBeforeARestartStaysAside(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	lineage := b.whole(t, "k")["e"]
	b.flushAside(t, "k")
	b.restart(t)
	b.do(t, increment("k", 1))
	require.Equal(t, []string{"retry"}, b.in(t, "k"))
	e := b.whole(t, "k")
	require.Equal(t, ";"+lineage+",1,1", e["p"])
	require.Equal(t, "1", e["a"])
}

// The clock of a promoted replica may be behind: a new epoch must still be newer than all before it.
func TestClockThatIsBehindMakesNoOlderEpochs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1))
	ahead := time.Now().Add(20 * 365 * 24 * time.Hour).UnixMicro()
	b.setMeta(t, keys[0], "open", strconv.FormatInt(ahead, 36))

	require.Equal(t, ahead, b.do(t, increment(keys[1], 1))[0].Epoch)
	e := b.seal(t, keys[0])
	require.Equal(t, ahead, number36(t, b.meta(t, keys[0])["sealed"]))
	require.Equal(t, ahead+1, number36(t, b.meta(t, keys[0])["open"]))
	require.Equal(t, ahead+1, b.do(t, set(keys[1], 3))[0].Epoch)
	require.True(t, b.commit(t, e))
	require.False(t, b.dirty(t, keys[0]))
	require.True(t, b.dirty(t, keys[1]))
	require.Equal(t, int64(2), b.do(t, increment(keys[0], 1))[0].Backlog, "both are in the next")
	require.True(t, b.dirty(t, keys[0]))

	b.restart(t)
	o := b.do(t, increment(keys[0], 1))[0]
	require.Equal(t, ahead+2, o.Epoch)
	require.Equal(t, ahead+2, o.First)
	require.Equal(t, ";"+strconv.FormatInt(ahead+1, 36)+",2,2", b.whole(t, keys[0])["p"])
	b.flush(t, keys[0])
	require.False(t, b.dirty(t, keys[0]) || b.dirty(t, keys[1]))
	require.Equal(t, "3", b.entry(t, keys[1])["v"])
}

func TestRestartBeginsAnotherIncarnation(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	b := setupOn(t, server.URL())
	b.warm(t, "clean", "dirty", "sealed")
	b.do(t, increment("clean", 1))
	b.commitAll(t)
	b.do(t, increment("sealed", 1))
	before := b.seal(t, "sealed")
	first := b.do(t, increment("dirty", 1))[0].First
	lineage := b.whole(t, "dirty")["e"]

	server.Kill()
	require.NoError(t, server.Start(t.Context()))
	b = setupOn(t, server.URL())

	require.True(t, b.dirty(t, "dirty") && b.dirty(t, "sealed") && !b.dirty(t, "clean"))
	require.False(t, b.commit(t, before))
	o := b.do(t, increment("dirty", 1))[0]
	require.Greater(t, o.First, first)
	require.LessOrEqual(t, o.First, o.Epoch)
	require.Equal(t, ";"+lineage+",1,1", b.whole(t, "dirty")["p"])
	p := postgres{}
	b.drain(t, p)
	require.Equal(t, int64(2), p["dirty"].Value)
	require.Equal(t, int64(1), p["sealed"].Value)
	require.False(t, b.dirty(t, "dirty") || b.dirty(t, "sealed"))
}

// A promoted replica has the epochs of its primary, but another incarnation.
func TestPromotionBeginsAnotherIncarnation(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--repl-diskless-sync-delay", "0"}})
	u, err := url.Parse(primary.URL())
	require.NoError(t, err)
	password, _ := u.User.Password()
	replica := localtest.OwnRedis(t, local.RedisOptions{Args: []string{
		"--replicaof", u.Hostname() + " " + u.Port(), "--masterauth", password,
	}})
	a, b := setupOn(t, primary.URL()), setupOn(t, replica.URL())
	// A primary changes its master_replid when its first replica connects.
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return strings.Contains(b.redis.Info(t.Context(), "replication").Val(), "master_link_status:up"), "the replica is not connected yet"
	})
	a.warm(t, "k")
	first := a.do(t, increment("k", 1))[0].First
	e := a.seal(t, "k")
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return b.meta(t, "k")["sealed"] != "", "the replica has no sealed epoch yet"
	})
	require.NoError(t, b.redis.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err())

	require.False(t, b.commit(t, e), "read from the old primary")
	require.Greater(t, b.do(t, increment("k", 1))[0].First, first)
	p := postgres{}
	b.drain(t, p)
	require.Equal(t, int64(2), p["k"].Value)
}

// A clock that was in the next century for a moment must not produce unreadable entries.
func TestEpochsOfTheNextCenturyAreReadable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	ahead := time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	b.setMeta(t, "k", "open", strconv.FormatInt(ahead, 36))
	for _, op := range []counter.Operation{increment("k", 1), set("k", 7), increment("k", 1), del("k"), increment("k", 3)} {
		require.NoError(t, b.do(t, op)[0].Err)
	}
	require.Equal(t, int64(3), b.do(t, get("k"))[0].Value)
	require.Equal(t, ahead, b.dirtyEntry(t, "k").Epoch)
	b.flush(t, "k")
	require.False(t, b.dirty(t, "k"))
}
