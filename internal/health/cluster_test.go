package health

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// node is a master of a cluster without full slot coverage.
type node struct {
	server *local.Redis
	client redis.UniversalClient
}

func newNode(t *testing.T, args ...string) node {
	t.Helper()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: append([]string{
		"--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "2000",
	}, args...)})
	client, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return node{server, client}
}

// cluster returns a client of three masters, and the first two masters. Each has half of the slots, and the first has the key. The third
// has one slot, so that two masters are a majority without the other.
func cluster(t *testing.T, key string) (client redis.UniversalClient, first, second node) {
	t.Helper()
	nodes := []node{newNode(t, "--appendonly", "yes"), newNode(t, "--appendonly", "no", "--maxmemory", "100mb"), newNode(t)}
	const slots = 16384
	low, high := nodes[0], nodes[1]
	if low.client.ClusterKeySlot(t.Context(), key).Val() >= slots/2 {
		low, high = high, low
	}
	require.NoError(t, nodes[2].client.Do(t.Context(), "CLUSTER", "ADDSLOTS", 0).Err())
	require.NoError(t, low.client.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 1, slots/2-1).Err())
	require.NoError(t, high.client.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", slots/2, slots-1).Err())
	addresses := make([]string, len(nodes))
	for i, n := range nodes {
		addresses[i] = n.server.Addr()
		host, port, err := net.SplitHostPort(addresses[i])
		require.NoError(t, err)
		require.NoError(t, nodes[0].client.Do(t.Context(), "CLUSTER", "MEET", host, port).Err())
		// Each test server has a password of its own, but a cluster client has one for all nodes.
		require.NoError(t, n.client.ConfigSet(t.Context(), "requirepass", "").Err())
	}
	for _, n := range nodes {
		localtest.Eventually(t, 20*time.Second, func() (bool, string) {
			info := n.client.ClusterInfo(t.Context()).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384"), info
		})
	}
	client, err := cache.Connect("redis-cluster://"+strings.Join(addresses, ","), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client, nodes[0], nodes[1]
}

// takeUntil takes samples until ok accepts one.
func takeUntil(t *testing.T, from *sampler, ok func(Snapshot) bool) Snapshot {
	t.Helper()
	var s Snapshot
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		var err error
		s, err = from.take(t.Context())
		return err == nil && ok(s), fmt.Sprintf("%v %+v", err, s)
	})
	return s
}

func TestMasterThatIsDownDoesNotHideTheOthers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ kill, heartbeats bool }{
		"it is killed, and has heartbeats": {kill: true, heartbeats: true},
		"it hangs":                         {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, away, stays := cluster(t, HeartbeatKey)
			if !test.heartbeats {
				away, stays = stays, away
			}
			c := cache.New(client, cache.Options{Shards: 64, CleanTTL: time.Hour})
			now, err := c.Now(t.Context())
			require.NoError(t, err)
			require.NoError(t, client.HSet(t.Context(), HeartbeatKey, "a", fmt.Sprintf(`%d {"role":"api"}`, now)).Err())
			for shard := range 64 {
				localtest.OpenEpoch(t, client, fmt.Sprintf("%02d", shard), time.UnixMilli(now), "k")
			}
			here := stays.client.DBSize(t.Context()).Val()
			if !test.heartbeats {
				here-- // the heartbeats
			}
			here /= 2 // each shard has its epochs, and the set of the open one
			sampler := newSampler(c, client)
			s := takeUntil(t, sampler, func(s Snapshot) bool { return s.Redis.Nodes == 3 })
			require.Zero(t, s.Away)
			require.EqualValues(t, 64, s.Dirty)
			require.Len(t, s.Processes, 1)
			require.False(t, s.Redis.AOF, "one of them has none")
			require.EqualValues(t, 100<<20, s.Redis.Limit, "the others have no limit")
			require.Equal(t, "cluster", s.Redis.Role)

			if test.kill {
				away.server.Kill()
			} else {
				t.Cleanup(away.server.Kill)
				require.NoError(t, syscall.Kill(away.server.Pid(), syscall.SIGSTOP))
			}

			takeUntil(t, sampler, func(s Snapshot) bool { return s.Redis.Nodes == 2 })
			for range 5 { // several times: any node may be asked for the time, and nodes may be late
				takeUntil(t, sampler, func(s Snapshot) bool {
					return s.Away == 64-here && s.Dirty == here && s.Unread == test.heartbeats && (len(s.Processes) == 0) == test.heartbeats
				})
			}
			if !test.kill {
				return
			}

			require.NoError(t, stays.client.ConfigSet(t.Context(), "cluster-require-full-coverage", "yes").Err())
			localtest.Eventually(t, 20*time.Second, func() (bool, string) {
				_, err := sampler.take(t.Context())
				return cache.Denial(err) == "CLUSTERDOWN", fmt.Sprint(err)
			})
		})
	}
}
