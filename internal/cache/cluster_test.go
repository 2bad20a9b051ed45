package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// clusterNode starts a node of a cluster; the first of a test gets all slots. url is for the cluster client.
func clusterNode(t *testing.T, args ...string) (node redis.UniversalClient, clusterURL string) {
	t.Helper()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: append([]string{"--cluster-enabled", "yes"}, args...)})
	node, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Close()) })
	return node, strings.Replace(server.URL(), "redis://", "redis-cluster://", 1)
}

func cluster(t *testing.T, args ...string) (node redis.UniversalClient, clusterURL string) {
	t.Helper()
	node, clusterURL = clusterNode(t, args...)
	require.NoError(t, node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		info, err := node.ClusterInfo(t.Context()).Result()
		return err == nil && strings.HasPrefix(info, "cluster_state:ok"), info
	})
	return node, clusterURL
}

// two starts a cluster of two masters that works even if one is down. The second master holds only the slot of shard 00.
func two(t *testing.T) (clusterURL string, second *local.Redis) {
	t.Helper()
	first := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"}})
	second = localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"}})
	a, b := setupOn(t, first.URL()).redis, setupOn(t, second.URL()).redis
	at, err := url.Parse(first.URL())
	require.NoError(t, err)
	password, _ := at.User.Password()
	require.NoError(t, b.ConfigSet(t.Context(), "requirepass", password).Err()) // the client has one for all nodes
	slot := a.ClusterKeySlot(t.Context(), "{aw:00}").Val()
	require.NoError(t, a.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, slot-1, slot+1, 16383).Err())
	require.NoError(t, b.Do(t.Context(), "CLUSTER", "ADDSLOTS", slot).Err())
	require.NoError(t, b.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", 1).Err())
	require.NoError(t, b.Do(t.Context(), "CLUSTER", "MEET", at.Hostname(), at.Port()).Err())
	for _, node := range []redis.UniversalClient{a, b} {
		localtest.Eventually(t, 20*time.Second, func() (bool, string) {
			info := node.ClusterInfo(t.Context()).Val()
			return strings.HasPrefix(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_assigned:16384"), info
		})
	}
	return strings.Replace(first.URL(), "redis://", "redis-cluster://", 1), second
}

func TestDeadMasterHidesOnlyTheBacklogOfItsShards(t *testing.T) {
	t.Parallel()
	clusterURL, second := two(t)
	b := setupOn(t, clusterURL)
	keys := make([]counter.Key, 0, testShards) // one of each shard
	for i := 0; len(keys) < testShards; i++ {
		if key := counter.Key("k" + strconv.Itoa(i)); int(b.cache.Shard(key)) == len(keys) {
			keys = append(keys, key)
		}
	}
	b.warm(t, keys...)
	for _, key := range keys {
		require.NoError(t, b.do(t, increment(key, 1))[0].Err)
	}
	e := b.seal(t, keys[1])
	require.NoError(t, b.cache.Bury(t.Context(), keys[1], cache.Dead{}))
	require.True(t, b.commit(t, e))
	seen := gauges(t, b.cache)
	require.InDelta(t, 1, seen["afterwrite_redis_up"], 0)
	require.InDelta(t, 0, seen["afterwrite_uncounted_shards"], 0)
	require.InDelta(t, testShards-1, seen["afterwrite_dirty_keys"], 0)

	require.NoError(t, syscall.Kill(second.Pid(), syscall.SIGSTOP))
	soon, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.NoError(t, b.cache.Ping(soon), "it does not wait for the hanging master")
	require.NoError(t, soon.Err())

	second.Kill()
	require.Error(t, b.do(t, increment(keys[0], 1))[0].Err)
	require.NoError(t, b.do(t, increment(keys[1], 1))[0].Err)

	require.NoError(t, b.cache.Ping(t.Context()), "most writes are accepted")
	for range 10 { // a random node is asked for the clock
		seen = gauges(t, b.cache)
		require.Zero(t, seen["afterwrite_redis_up"])
		require.InDelta(t, 1, seen["afterwrite_uncounted_shards"], 0)
		require.InDelta(t, testShards-2, seen["afterwrite_dirty_keys"], 0)
		require.InDelta(t, 1, seen["afterwrite_dead_keys"], 0)
		require.Positive(t, seen["afterwrite_oldest_dirty_seconds"])
		require.Less(t, seen["afterwrite_oldest_dirty_seconds"], 600.0)
		require.Contains(t, seen, "afterwrite_redis_aof_enabled", "from the other master")
	}
	backlog, err := b.cache.Backlog(t.Context())
	require.Error(t, err, "a partial count must not pass for a complete one")
	require.Equal(t, 1, backlog.Uncounted)
	shards, err := b.cache.Backlogs(t.Context())
	require.NoError(t, err, "the limit of dirty keys counts the other shards")
	require.EqualValues(t, testShards-1, shards.Sum().Dirty+shards.Sum().Dead)
}

// A cluster that is down answers PING and INFO.
func TestPingFailsOnAClusterThatIsDown(t *testing.T) {
	t.Parallel()
	node, clusterURL := cluster(t)
	b := setupOn(t, clusterURL)
	require.NoError(t, b.cache.Ping(t.Context()))

	require.NoError(t, node.Do(t.Context(), "CLUSTER", "DELSLOTS", 0).Err()) // no shard has this slot, but one missing slot is enough
	require.NoError(t, b.redis.Ping(t.Context()).Err())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		err := b.cache.Ping(t.Context())
		return err != nil && strings.Contains(err.Error(), "CLUSTERDOWN"), fmt.Sprint(err)
	})
	seen := gauges(t, b.cache)
	require.Zero(t, seen["afterwrite_redis_up"])
	require.InDelta(t, testShards, seen["afterwrite_uncounted_shards"], 0)
	require.NotContains(t, seen, "afterwrite_dirty_keys")
}

func TestEntriesOfOneShardShareASlotOnACluster(t *testing.T) {
	t.Parallel()
	_, clusterURL := cluster(t)
	b := setupOn(t, clusterURL)

	keys := make([]counter.Key, 50)
	ops := make([]counter.Operation, 0, 100)
	bases := make([]cache.Base, len(keys))
	for i := range keys {
		keys[i] = counter.Key("k" + strconv.Itoa(i))
		ops = append(ops, increment(keys[i], 1), increment(keys[i], int64(i)))
		bases[i] = cache.Base{Key: keys[i], Row: counter.Row{Value: int64(i)}, Found: true, Token: b.token(t, keys[i])}
	}
	done, err := b.cache.Hydrate(t.Context(), bases)
	require.NoError(t, err)
	require.Len(t, done, len(keys))
	got := b.do(t, ops...)
	for i, key := range keys {
		require.Equal(t, cache.Hydrated, done[i])
		require.NoError(t, got[2*i+1].Err)
		require.Equal(t, int64(2*i+1), got[2*i+1].Value)
		require.True(t, b.dirty(t, key))
	}
	for s := range testShards {
		e := b.take(t, counter.Shard(s), cache.Taking{})
		require.Equal(t, cache.Sealed, e.State)
		aside := b.keysOf(t, e)[:2]
		b.setAside(t, 0, aside...)
		require.True(t, b.commit(t, e))
		b.settle(t, b.read(t, aside[0]))
		require.Equal(t, aside[1:], b.requeueDue(t, counter.Shard(s)))
		b.flush(t, aside[1])
	}
	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Zero(t, backlog.Dirty)
	for _, key := range keys {
		require.False(t, b.dirty(t, key))
	}
}

// While a slot moves, each node holds a part of its keys. A write must not be applied on a node that cannot put its key into the open
// epoch.
func TestMovingSlotRefusesWritesAsAWhole(t *testing.T) {
	t.Parallel()
	node, clusterURL := cluster(t)
	other, _ := clusterNode(t)
	address, err := url.Parse(clusterURL)
	require.NoError(t, err)
	require.NoError(t, other.Do(t.Context(), "CLUSTER", "MEET", address.Hostname(), address.Port()).Err())
	id, err := other.Do(t.Context(), "CLUSTER", "MYID").Text()
	require.NoError(t, err)
	b := setupOn(t, clusterURL)
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	b.flush(t, "k")
	slot := node.ClusterKeySlot(t.Context(), b.entryKey("k")).Val()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		err := node.Do(t.Context(), "CLUSTER", "SETSLOT", slot, "MIGRATING", id).Err()
		return err == nil, fmt.Sprint(err)
	})

	// The open epoch is missing: for the node, it may have moved already.
	o := b.do(t, increment("k", 1))[0]
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(o.Err))
	require.Equal(t, "1", localtest.EntryFields(node.Get(t.Context(), b.entryKey("k")).Val())["v"], "nothing was applied")

	require.NoError(t, node.Do(t.Context(), "CLUSTER", "SETSLOT", slot, "STABLE").Err())
	require.Equal(t, int64(2), b.do(t, increment("k", 1))[0].Value)

	// The entry has moved, its epoch has not: that must not make it a dead letter.
	e := b.seal(t, "k")
	require.NoError(t, node.Del(t.Context(), b.entryKey("k")).Err())
	require.NoError(t, node.Do(t.Context(), "CLUSTER", "SETSLOT", slot, "MIGRATING", id).Err())
	require.Equal(t, []counter.Key{"k"}, b.keysOf(t, e))
	_, err = b.cache.Read(t.Context(), b.cache.Shard("k"), []counter.Key{"k"})
	require.Error(t, err, "neither missing nor corrupt")
	require.Error(t, b.cache.SetAside(t.Context(), b.cache.Shard("k"), []counter.Key{"k"}, time.Minute))
	require.NoError(t, node.Do(t.Context(), "CLUSTER", "SETSLOT", slot, "STABLE").Err())
	require.True(t, b.dirty(t, "k"))
}

// go-redis has a separate retry setting for clusters: with it, an increment whose answer was lost would count twice.
func TestClusterClientDoesNotResendAnIncrementWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	node, clusterURL := cluster(t, "--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", port)
	address, err := url.Parse(clusterURL)
	require.NoError(t, err)
	var armed atomic.Bool
	go loseAnswer(listener, address.Host, &armed)
	t.Cleanup(func() { _ = listener.Close() })
	address.Host = listener.Addr().String()
	b := setupOn(t, address.String())
	b.warm(t, "k")
	require.NoError(t, b.do(t, increment("k", 1))[0].Err)

	armed.Store(true)
	o := b.do(t, increment("k", 1))[0]

	require.Equal(t, counter.CodeOutcomeUnknown, counter.CodeOf(o.Err))
	require.False(t, armed.Load(), "an answer was lost")
	require.Equal(t, "2", localtest.EntryFields(node.Get(context.Background(), b.entryKey("k")).Val())["v"], "it was applied once")
}

// loseAnswer is a proxy to target. Once armed, it closes the connection instead of passing on the answer to the next script call.
func loseAnswer(listener net.Listener, target string, armed *atomic.Bool) {
	for {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		out, err := new(net.Dialer).DialContext(context.Background(), "tcp", target)
		if err != nil {
			_ = in.Close()
			continue
		}
		var cut atomic.Bool
		pass := func(from, to net.Conn, look func([]byte) bool) {
			buffer := make([]byte, 1<<16)
			for {
				n, err := from.Read(buffer)
				if err != nil || look(buffer[:n]) {
					break
				}
				if _, err := to.Write(buffer[:n]); err != nil {
					break
				}
			}
			_ = from.Close()
			_ = to.Close()
		}
		go pass(in, out, func(b []byte) bool {
			if bytes.Contains(bytes.ToLower(b), []byte("evalsha")) && armed.CompareAndSwap(true, false) {
				cut.Store(true)
			}
			return false
		})
		go pass(out, in, func([]byte) bool { return cut.Load() })
	}
}

// setupMoving returns a bundle on a cluster. Its shard 1, which has the counters of alike, can begin to move to another node, and stay
// after all.
func setupMoving(t *testing.T) (b *testBundle, move func(moving bool)) {
	t.Helper()
	node, clusterURL := cluster(t)
	other, _ := clusterNode(t)
	address, err := url.Parse(clusterURL)
	require.NoError(t, err)
	require.NoError(t, other.Do(t.Context(), "CLUSTER", "MEET", address.Hostname(), address.Port()).Err())
	id, err := other.Do(t.Context(), "CLUSTER", "MYID").Text()
	require.NoError(t, err)
	b = setupOn(t, clusterURL)
	slot := node.ClusterKeySlot(t.Context(), b.entryKey(b.alike(1)[0])).Val()
	return b, func(moving bool) {
		to := []any{"STABLE"}
		if moving {
			to = []any{"MIGRATING", id}
		}
		localtest.Eventually(t, 20*time.Second, func() (bool, string) {
			err := node.Do(t.Context(), append([]any{"CLUSTER", "SETSLOT", slot}, to...)...).Err()
			return err == nil, fmt.Sprint(err)
		})
	}
}

// The scripts of a flush delete or empty keys before they write them again: none may fail halfway.
func TestMovingSlotLosesNoEntry(t *testing.T) {
	t.Parallel()
	b, move := setupMoving(t)
	keys := b.alike(8)
	b.warm(t, keys...)
	sealed, open, retry, written, dead, alone := keys[0], keys[1], keys[2], keys[3], keys[4], keys[5]
	b.do(t, increment(retry, 1), increment(written, 1), increment(dead, 1))
	e := b.seal(t, retry)
	b.setAside(t, 0, retry, written)
	require.NoError(t, b.cache.Bury(t.Context(), dead, cache.Dead{}))
	require.True(t, b.commit(t, e))
	before := map[counter.Key]cache.Entry{written: b.read(t, written), retry: b.read(t, retry)}
	b.do(t, increment(sealed, 1), increment(written, 1))
	b.seal(t, sealed)
	b.do(t, increment(open, 1), increment(alone, 1))
	b.blind(t, increment(keys[6], 1))
	all := b.snapshot(t)
	for name, step := range map[string]func() error{
		"aside": func() error {
			return b.cache.SetAside(t.Context(), 1, []counter.Key{open}, 0)
		},
		"settle": func() error {
			return b.cache.Settle(t.Context(), 1, []cache.Entry{before[written], before[retry]})
		},
		"requeue": func() error { return b.cache.Requeue(t.Context(), []counter.Key{retry, written}) },
		"requeue one that has moved": func() error {
			require.NoError(t, b.redis.Del(t.Context(), b.entryKey(retry)).Err())
			return b.cache.Requeue(t.Context(), []counter.Key{retry})
		},
		"redrive": func() error {
			_, err := b.cache.Redrive(t.Context(), 1, []counter.Key{dead})
			return err
		},
		"merge": func() error {
			row := counter.Row{Key: open, Value: 9, Version: 9, Lineage: 3}
			_, err := b.cache.Reconcile(t.Context(), 1, []cache.Conflict{{Entry: b.read(t, open), Row: row}})
			return err
		},
		"adopt": func() error {
			var conflicts []cache.Conflict
			for _, key := range []counter.Key{sealed, open, retry} {
				entry := b.read(t, key)
				row := counter.Row{Key: key, Value: 9, Version: 9, Lineage: entry.Lineage}
				conflicts = append(conflicts, cache.Conflict{Entry: entry, Row: row, Adopt: true})
			}
			_, err := b.cache.Reconcile(t.Context(), 1, conflicts)
			return err
		},
		"rebase": func() error {
			_, err := b.cache.Hydrate(t.Context(), []cache.Base{{Key: keys[6], Token: b.token(t, keys[6])}})
			return err
		},
		"rewind": func() error {
			_, err := b.cache.Rewind(t.Context(), b.read(t, dead), counter.Row{Key: dead, Value: 1, Version: 9})
			return err
		},
	} {
		b.rollback(t, all)
		move(true)
		err := step()
		move(false)
		t.Logf("%s: %v", name, err)
		if name == "requeue one that has moved" {
			require.Error(t, err)
			require.Equal(t, []string{"retry"}, b.in(t, retry), "its retry still finds it")
		}
		for _, key := range keys {
			if name != "requeue one that has moved" || key != retry {
				require.NotEmpty(t, b.text(t, key), "%s: %q is lost", name, key)
			}
			b.dirty(t, key) // if it is dirty, a flush finds it
		}
		require.True(t, b.dirty(t, retry) || name == "settle" || name == "adopt", name)
	}
}

// A command of a script fails if its key does not exist on a node whose slot is moving to another. Neither the count of records nor the
// lists are in KEYS, so Redis does not check them before the script runs.
func TestMovingSlotLosesNoRecord(t *testing.T) {
	t.Parallel()
	b, move := setupMoving(t)
	keys := b.alike(7)
	key, blind, dead, other := keys[0], keys[1], keys[2], keys[3]
	recorded := keys[:4]
	b.cache = cache.New(b.redis, cache.Options{Shards: testShards, CleanTTL: time.Hour, History: func(key counter.Key) bool {
		return slices.Contains(recorded, key)
	}})
	b.writer = b.cache.NewWriter(func() bool { return true })
	t.Cleanup(b.writer.Close)
	list := func(key counter.Key) string { return b.tag(key) + ":h:" + string(key) }
	count := b.tag(key) + ":hn"
	b.warm(t, key, dead, other, keys[4], keys[5])
	b.do(t, increment(keys[4], 1), increment(keys[5], 1)) // so that all keys of the shard exist
	b.setAside(t, time.Hour, keys[4])
	b.seal(t, key)
	b.do(t, increment(key, 1), increment(key, 2), increment(dead, 1), increment(dead, 1), increment(other, 1))
	b.blind(t, increment(blind, 1), increment(blind, 2))
	require.NoError(t, b.cache.Bury(t.Context(), dead, cache.Dead{}))
	all := b.snapshot(t)
	lists := func() map[counter.Key][]string {
		now := make(map[counter.Key][]string)
		for _, key := range recorded {
			now[key] = b.redis.LRange(t.Context(), list(key), 0, -1).Val()
		}
		return now
	}
	before := lists()
	token := b.token(t, blind)
	entry := b.read(t, key)
	merge := func() error {
		row := counter.Row{Key: key, Value: 9, Version: 9, Lineage: 3}
		_, err := b.cache.Reconcile(t.Context(), 1, []cache.Conflict{{Entry: entry, Row: row}})
		return err
	}
	hydrate := func() error {
		results, err := b.cache.Hydrate(t.Context(), []cache.Base{{Key: blind, Token: token, Found: true, Row: counter.Row{Value: 5, Version: 5}}})
		if err == nil && results[0] != cache.Hydrated {
			err = fmt.Errorf("%c", results[0]) //nolint:err113 // for this test only
		}
		return err
	}
	rewind := func() error {
		_, err := b.cache.Rewind(t.Context(), b.read(t, dead), counter.Row{Key: dead, Value: 1, Version: 9})
		return err
	}
	for name, c := range map[string]struct {
		step    func() error
		without string // the key that has moved
		key     counter.Key
		want    []string // the versions of its records afterwards; nil: the step fails
	}{
		"write":                     {func() error { return b.do(t, increment(key, 1))[0].Err }, "", key, []string{"1", "2", "3"}},
		"write without the count":   {func() error { return b.do(t, increment(key, 1))[0].Err }, count, key, nil},
		"write without the list":    {func() error { return b.do(t, increment(key, 1))[0].Err }, list(key), key, nil},
		"rebase":                    {hydrate, "", blind, []string{"6", "7"}},
		"rebase without the count":  {hydrate, count, blind, nil},
		"rebase without the list":   {hydrate, list(blind), blind, nil},
		"merge":                     {merge, "", key, []string{"10", "11"}},
		"merge without the count":   {merge, count, key, nil},
		"merge without the list":    {merge, list(key), key, nil},
		"discard":                   {rewind, "", dead, []string{"9"}},
		"discard without the count": {rewind, count, dead, nil},
		"discard without the list":  {rewind, list(dead), dead, nil},
	} {
		require.NoError(t, b.redis.FlushDB(t.Context()).Err())
		for name, d := range all {
			require.NoError(t, b.redis.Restore(t.Context(), name, d.ttl, d.value).Err())
		}
		text := b.text(t, c.key)
		if c.without != "" {
			require.NoError(t, b.redis.Del(t.Context(), c.without).Err())
		}
		move(true)
		err := c.step()
		move(false)
		t.Logf("%s: %v", name, err)
		after := lists()
		if c.want == nil {
			require.Error(t, err, name)
			require.Equal(t, text, b.text(t, c.key), name)
			if c.without != list(c.key) {
				require.Equal(t, before[c.key], after[c.key], name)
			}
		} else {
			require.NoError(t, err, name)
			require.Len(t, after[c.key], len(c.want), name)
			for i, version := range c.want {
				require.Equal(t, version, strings.Fields(after[c.key][i])[0], name)
			}
			total := 0
			for _, records := range after {
				total += len(records)
			}
			require.Equal(t, strconv.Itoa(total), b.redis.Get(t.Context(), count).Val(), name)
		}
	}
}
