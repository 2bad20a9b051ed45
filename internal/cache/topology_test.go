package cache_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// replicated is a cluster of three masters; the first has a replica, and the slots of shards 00 and 01.
type replicated struct {
	url             string
	master, replica *local.Redis
	promoted        redis.UniversalClient // the replica's client
	all             []redis.UniversalClient
}

func newReplicated(t *testing.T) *replicated {
	t.Helper()
	args := []string{
		"--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "1000",
		"--repl-diskless-sync-delay", "0",
	}
	c := &replicated{}
	var servers []*local.Redis
	var addrs []string
	for range 4 {
		server := localtest.OwnRedis(t, local.RedisOptions{Args: args})
		node, err := cache.Connect(server.URL(), 4)
		require.NoError(t, err)
		t.Cleanup(func() { _ = node.Close() })
		require.NoError(t, node.ConfigSet(t.Context(), "requirepass", "").Err()) // a cluster client has one for all nodes
		servers, c.all, addrs = append(servers, server), append(c.all, node), append(addrs, server.Addr())
	}
	c.master, c.replica, c.promoted = servers[0], servers[3], c.all[3]
	c.url = "redis-cluster://" + strings.Join(addrs, ",")
	var own []int // slots of the first master
	for shard := range 2 {
		own = append(own, int(c.all[0].ClusterKeySlot(t.Context(), fmt.Sprintf("{aw:%02d}", shard)).Val()))
	}
	slots := make([][]any, 3) // by master
	for slot := range 16384 {
		of := 1 + slot/8192
		if slices.Contains(own, slot) {
			of = 0
		}
		slots[of] = append(slots[of], slot)
	}
	for i, node := range c.all[:3] {
		require.NoError(t, node.Do(t.Context(), append([]any{"CLUSTER", "ADDSLOTS"}, slots[i]...)...).Err())
		require.NoError(t, node.Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
	}
	for _, addr := range addrs[1:] {
		host, port, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		require.NoError(t, c.all[0].Do(t.Context(), "CLUSTER", "MEET", host, port).Err())
	}
	id, err := c.all[0].Do(t.Context(), "CLUSTER", "MYID").Text()
	require.NoError(t, err)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		err := c.promoted.Do(t.Context(), "CLUSTER", "REPLICATE", id).Err()
		return err == nil, fmt.Sprint(err)
	})
	for _, node := range c.all {
		localtest.Eventually(t, 20*time.Second, func() (bool, string) {
			info := node.ClusterInfo(t.Context()).Val()
			nodes := node.ClusterNodes(t.Context()).Val()
			return strings.HasPrefix(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_assigned:16384") &&
				strings.Count(nodes, "slave") == 1 && strings.Count(nodes, "master") == 3, info + nodes
		})
	}
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info := c.promoted.Info(t.Context(), "replication").Val()
		return strings.Contains(info, "master_link_status:up"), info
	})
	return c
}

// ledger records the answers to increments of one key.
type ledger struct {
	key counter.Key

	mu                      sync.Mutex
	acked, unknown, refused int64
	errs                    []error
	last                    time.Time     // the last acknowledged increment
	gap                     time.Duration // the longest time without one
}

func (l *ledger) count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// load increments a key of each shard all the time, until the returned function is called.
func (b *testBundle) load(t *testing.T) (ledgers []*ledger, stop func()) {
	t.Helper()
	return b.loadOn(t, testShards, func(write cache.Write) (cache.Outcome, error) {
		return b.writer.Do(context.Background(), []cache.Write{write})[0], nil
	})
}

// loadDurably is load for the first shards, with a Writer that waits for one replica.
func (b *testBundle) loadDurably(t *testing.T, shards int) (ledgers []*ledger, stop func()) {
	t.Helper()
	w := b.cache.NewDurableWriter(func() bool { return true }, cache.OnReplicas, 1)
	t.Cleanup(w.Close)
	return b.loadOn(t, shards, func(write cache.Write) (cache.Outcome, error) {
		until := time.Now().Add(10 * time.Second)
		o := w.DoUntil(context.Background(), []cache.Write{write}, until)[0]
		if o.Err != nil {
			return o, nil //nolint:nilerr // the outcome has it
		}
		return o, o.Confirmation.Await(context.Background(), until)
	})
}

func (b *testBundle) loadOn(
	t *testing.T, shards int, do func(cache.Write) (o cache.Outcome, unconfirmed error),
) (ledgers []*ledger, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := 0; len(ledgers) < shards; i++ {
		key := counter.Key("k" + strconv.Itoa(i))
		if int(b.cache.Shard(key)) != len(ledgers) {
			continue
		}
		b.warm(t, key)
		l := &ledger{key: key, last: time.Now()}
		ledgers = append(ledgers, l)
		running.Go(func() {
			for ctx.Err() == nil {
				// The switch may come before the first write: then the entry is unchecked, and nobody here compares it with its row.
				l.add(do(cache.Write{Operation: increment(key, 1), Accept: true}))
				time.Sleep(2 * time.Millisecond) // the pace of a client
			}
		})
	}
	return ledgers, func() {
		cancel()
		running.Wait()
	}
}

func (l *ledger) add(o cache.Outcome, unconfirmed error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	switch code := counter.CodeOf(o.Err); {
	case unconfirmed != nil:
		l.unknown++
	case o.Err == nil && !o.Cold:
		l.acked++
		l.gap = max(l.gap, now.Sub(l.last))
		l.last = now
	case code == counter.CodeOutcomeUnknown:
		l.unknown++
	default:
		l.refused++
	}
	if err := errors.Join(o.Err, unconfirmed); err != nil {
		l.errs = append(l.errs, err)
	}
}

func TestWritesFollowAFailoverOfACluster(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fail    func(t *testing.T, c *replicated)
		planned bool
	}{
		"the master is killed": {fail: func(_ *testing.T, c *replicated) { c.master.Kill() }},
		"the master hangs": {fail: func(t *testing.T, c *replicated) {
			t.Helper()
			t.Cleanup(c.master.Kill)
			require.NoError(t, syscall.Kill(c.master.Pid(), syscall.SIGSTOP))
		}},
		"planned": {planned: true, fail: func(t *testing.T, c *replicated) {
			t.Helper()
			require.NoError(t, c.promoted.Do(t.Context(), "CLUSTER", "FAILOVER").Err())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newReplicated(t)
			b := setupOn(t, c.url)
			all, stop := b.load(t)
			began := time.Now()
			test.fail(t, c)
			localtest.Eventually(t, 20*time.Second, func() (bool, string) {
				info := c.promoted.Info(t.Context(), "replication").Val()
				return strings.Contains(info, "role:master"), info
			})
			away := time.Since(began)
			for _, l := range all {
				from := l.count()
				localtest.Eventually(t, 2*time.Second, func() (bool, string) { return l.count() > from, string(l.key) })
			}
			stop()

			for _, l := range all {
				t.Logf("away %v, shard %s: acked %d, unknown %d, refused %d, longest gap %v", away, b.cache.Shard(l.key),
					l.acked, l.unknown, l.refused, l.gap)
				require.Less(t, l.gap, away+2*time.Second)
				value := b.do(t, get(l.key))[0].Value
				require.LessOrEqual(t, value, l.acked+l.unknown, "none counts twice")
				switch {
				case test.planned:
					require.Zero(t, l.refused+l.unknown, "clients do not notice it")
					require.Equal(t, l.acked, value)
				case b.cache.Shard(l.key) > 1:
					require.Zero(t, l.refused+l.unknown, "its master is well")
					require.Less(t, l.gap, away, "it does not wait for another master")
				}
			}
		})
	}
}

// A server that has become a replica refuses the writes, so they are sent again to the new master, and confirmed there. Writes that wait
// for their confirmation at that moment get none, since Redis ends their WAIT.
func TestDurableWritesFollowAPlannedFailoverOfACluster(t *testing.T) {
	t.Parallel()
	c := newReplicated(t)
	b := setupOn(t, c.url)
	all, stop := b.loadDurably(t, 2) // the shards with a replica
	for _, l := range all {
		localtest.Eventually(t, 10*time.Second, func() (bool, string) { return l.count() > 20, string(l.key) })
	}
	require.NoError(t, c.promoted.Do(t.Context(), "CLUSTER", "FAILOVER").Err())
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info := c.promoted.Info(t.Context(), "replication").Val()
		return strings.Contains(info, "role:master") && strings.Contains(info, "state=online"), info
	})
	for _, l := range all {
		from := l.count()
		localtest.Eventually(t, 5*time.Second, func() (bool, string) { return l.count() > from, string(l.key) })
	}
	stop()
	for _, l := range all {
		t.Logf("shard %s: acked %d, unknown %d, refused %d, longest gap %v", b.cache.Shard(l.key), l.acked, l.unknown, l.refused, l.gap)
		require.Zero(t, l.refused, "%v", l.errs)
		for _, err := range l.errs {
			require.ErrorIs(t, err, cache.ErrNotReached)
		}
		require.LessOrEqual(t, l.unknown, int64(1))
		require.Equal(t, l.acked+l.unknown, b.do(t, get(l.key))[0].Value, "none is lost, none counts twice")
	}
}

// FAILOVER is for a master and a replica behind one address. The test's proxy moves it, as a load balancer or a DNS name would.
func TestClientsDoNotNoticeAFailoverBehindOneAddress(t *testing.T) {
	t.Parallel()
	args := []string{"--repl-diskless-sync-delay", "0"}
	first := localtest.OwnRedis(t, local.RedisOptions{Args: args})
	second := localtest.OwnRedis(t, local.RedisOptions{Args: args})
	var nodes []redis.UniversalClient
	for _, server := range []*local.Redis{first, second} {
		node, err := cache.Connect(server.URL(), 4)
		require.NoError(t, err)
		t.Cleanup(func() { _ = node.Close() })
		require.NoError(t, node.ConfigSet(t.Context(), "requirepass", "").Err())
		nodes = append(nodes, node)
	}
	host, port, err := net.SplitHostPort(first.Addr())
	require.NoError(t, err)
	require.NoError(t, nodes[1].ReplicaOf(t.Context(), host, port).Err())
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info := nodes[0].Info(t.Context(), "replication").Val()
		return strings.Contains(info, "state=online"), info
	})
	p := newProxy(t, first.Addr())
	b := setupOn(t, "redis://"+p.Addr().String())
	all, stop := b.load(t)
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { return all[0].count() > 20, "no load" })

	require.NoError(t, nodes[0].Do(t.Context(), "FAILOVER").Err())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		info := nodes[1].Info(t.Context(), "replication").Val()
		return strings.Contains(info, "role:master"), info
	})
	p.lead(second.Addr())
	for _, l := range all {
		from := l.count()
		localtest.Eventually(t, 2*time.Second, func() (bool, string) { return l.count() > from, string(l.key) })
	}
	stop()

	for _, l := range all {
		t.Logf("shard %s: acked %d, unknown %d, refused %d, longest gap %v", b.cache.Shard(l.key), l.acked, l.unknown, l.refused, l.gap)
		require.Zero(t, l.refused+l.unknown)
		require.Equal(t, l.acked, b.do(t, get(l.key))[0].Value, "none is lost, none counts twice")
	}
}

// proxy leads its address to a server that may change. Connections that are open stay.
type proxy struct {
	net.Listener

	target atomic.Pointer[string]
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: listener}
	p.lead(target)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", *p.target.Load())
			if err != nil {
				_ = in.Close()
				continue
			}
			pass := func(from, to net.Conn) {
				_, _ = io.Copy(to, from)
				_ = from.Close()
				_ = to.Close()
			}
			go pass(in, out)
			go pass(out, in)
		}
	}()
	return p
}

func (p *proxy) lead(target string) { p.target.Store(&target) }
