package process

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestDoctorSaysWhatAFailureCanLose(t *testing.T) {
	t.Parallel()
	const (
		cutOff = "; a primary that is cut off from its replicas still takes writes, but cannot acknowledge them"
		open   = ", and a failover can lose those that its new primary had not received; without min-replicas-to-write there is no bound, " +
			"since a primary that is cut off from its replicas still acknowledges writes"
		bounded = ", and a failover can lose up to about 10 s of those that its new primary had not received"
	)
	for name, c := range map[string]struct {
		safety safety
		status Status
		want   string
		fix    string
	}{
		"memory": {
			safety{durability: "memory", fsync: "everysec"},
			OK,
			"a crash of the Redis machine can lose up to about 1 s of acknowledged writes: appendfsync everysec, no replica, durability memory", "",
		},
		"memory, no file": {
			safety{durability: "memory", fsync: "off"},
			OK,
			"a crash or restart of the Redis machine loses all acknowledged writes that Postgres does not have yet: " +
				"no append-only file, no replica, durability memory", "",
		},
		"memory, no flushes": {
			safety{durability: "memory", fsync: "no"},
			OK,
			"a crash of the Redis machine can lose up to about 30 s of acknowledged writes: appendfsync no, no replica, durability memory", "",
		},
		"memory, always": {
			safety{durability: "memory", fsync: "always"},
			OK,
			"a crash of the Redis machine loses no acknowledged write, unless its disk is lost: appendfsync always, no replica, durability memory", "",
		},
		"memory, hidden": {
			safety{durability: "memory", fsync: "unknown"},
			OK,
			"a crash of the Redis machine can lose acknowledged writes: appendfsync unknown, no replica, durability memory", "",
		},
		"memory, sentinel": {
			safety{durability: "memory", fsync: "everysec", replicas: 1, failover: "Sentinel"},
			OK,
			"a crash of the Redis machine can lose up to about 1 s of acknowledged writes" + open +
				": appendfsync everysec, 1 replica, min-replicas-to-write 0, Sentinel, durability memory", "",
		},
		"memory, cluster, bounded": {
			safety{durability: "memory", fsync: "everysec", replicas: 2, minReplicas: 1, maxLag: 10, failover: "Cluster"},
			OK,
			"a crash of the Redis machine can lose up to about 1 s of acknowledged writes" + bounded +
				": appendfsync everysec, 2 replicas, min-replicas-to-write 1 with min-replicas-max-lag 10, Cluster, durability memory", "",
		},
		"replica": {
			safety{durability: "replica", waitReplicas: 1, fsync: "everysec", replicas: 1, failover: "Sentinel"},
			OK,
			"a failover loses no acknowledged write, and a crash of all Redis machines at once can lose up to about 1 s of acknowledged writes" +
				cutOff + ": appendfsync everysec, 1 replica, min-replicas-to-write 0, Sentinel, durability replica", "",
		},
		"replica, no file": {
			safety{durability: "replica", waitReplicas: 1, fsync: "off", replicas: 1, minReplicas: 1, maxLag: 10},
			Warning,
			"a failover loses no acknowledged write, but a restart of the primary before a failover loses all that Postgres does not " +
				"have yet, on its replicas too: no append-only file, 1 replica, min-replicas-to-write 1 with min-replicas-max-lag 10, " +
				"durability replica", "appendonly yes",
		},
		"replica, one of two": {
			safety{durability: "replica", waitReplicas: 1, fsync: "always", replicas: 2, minReplicas: 1, maxLag: 10},
			OK,
			"a failover can lose acknowledged writes if it promotes a replica that did not confirm them, and a crash of all Redis machines " +
				"at once loses no acknowledged write, unless its disk is lost: appendfsync always, 2 replicas, min-replicas-to-write 1 with " +
				"min-replicas-max-lag 10, durability replica", "AFTERWRITE_WAIT_REPLICAS=2",
		},
		"replica, away": {
			safety{durability: "replica", waitReplicas: 2, fsync: "everysec", replicas: 1},
			Warning,
			"writes get 503 not_durable until Redis has 2 replicas: appendfsync everysec, 1 replica, min-replicas-to-write 0, durability replica",
			"start the replicas",
		},
		"disk": {
			safety{durability: "disk", disk: true, fsync: "always"},
			OK,
			"a crash of the Redis machine loses no acknowledged write: appendfsync always, no replica, durability disk", "",
		},
		"disk, replica": {
			safety{durability: "disk", disk: true, fsync: "always", replicas: 1, minReplicas: 1, maxLag: 10},
			OK,
			"a crash of the Redis machine loses no acknowledged write, but a failover can lose up to about 10 s of those that its new " +
				"primary had not received: appendfsync always, 1 replica, min-replicas-to-write 1 with min-replicas-max-lag 10, durability disk", "",
		},
		"disk, unsupported": {
			safety{durability: "disk", fsync: "everysec"},
			Refused,
			"Redis cannot confirm that a write is on its disk, so no write would be accepted: appendfsync everysec, no replica, durability disk",
			"appendfsync always",
		},
	} {
		f := c.safety.finding()
		require.Equal(t, c.want, f.Detail, name)
		require.Equal(t, c.status, f.Status, name)
		require.Contains(t, f.Fix, c.fix, name)
		require.Equal(t, c.fix == "", f.Fix == "", name)
	}
}

func TestDurabilityOfRealServers(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, Args: []string{"--repl-diskless-sync-delay", "0"}})
	client := connect(t, primary.URL())
	check := func(durability string) Finding {
		t.Helper()
		return find(t, Checks{Redis: client, Durability: durability, WaitReplicas: 1}.Run(t.Context()), "durability")
	}
	require.Contains(t, check("memory").Detail, "can lose up to about 1 s of acknowledged writes: appendfsync everysec, no replica")
	require.Equal(t, Warning, check("replica").Status)
	require.Equal(t, Refused, check("disk").Status)
	require.NoError(t, client.ConfigSet(t.Context(), "appendfsync", "always").Err())
	require.Equal(t, OK, check("disk").Status)

	u, err := url.Parse(primary.URL())
	require.NoError(t, err)
	password, _ := u.User.Password()
	localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--replicaof", u.Hostname() + " " + u.Port(), "--masterauth", password}})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		text := client.Info(t.Context(), "replication").Val()
		return strings.Contains(text, "state=online"), text
	})
	f := check("replica")
	require.Equal(t, OK, f.Status)
	require.Contains(t, f.Detail, "a primary that is cut off from its replicas still takes writes, but cannot acknowledge them")
	require.NoError(t, client.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())
	require.Contains(t, check("replica").Detail, "1 replica, min-replicas-to-write 1 with min-replicas-max-lag 10, durability replica")
	require.NotContains(t, check("replica").Detail, "cut off")
}

// Only the api needs the durability that is configured.
func TestDurabilityThatRedisLacksIsRefusedAtStartOfTheAPIOnly(t *testing.T) {
	t.Parallel()
	require.True(t, Checks{RequireDurability: true}.mustBeFit("durability 127.0.0.1:7000"))
	require.False(t, Checks{}.mustBeFit("durability"))
}
