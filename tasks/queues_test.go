package tasks_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

// cluster returns the client of a cluster of one node.
func cluster(t *testing.T) *redis.ClusterClient {
	t.Helper()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--cluster-enabled", "yes"}})
	at, err := url.Parse(server.URL())
	require.NoError(t, err)
	password, _ := at.User.Password()
	node := redis.NewClient(&redis.Options{Addr: at.Host, Password: password})
	defer node.Close()
	require.NoError(t, node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		info, err := node.ClusterInfo(t.Context()).Result()
		return err == nil && strings.HasPrefix(info, "cluster_state:ok"), info
	})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{at.Host}, Password: password})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func TestQueuesOfOneServer(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string]int{"aw-flush": 6, "aw-sweep": 3, "aw-retry": 1}, tasks.QueuesIn(&redis.Client{}, "").Weights())
	shop := tasks.QueuesIn(&redis.Client{}, "shop:")
	require.Equal(t, []string{"shop:aw-flush", "shop:aw-retry", "shop:aw-sweep"}, shop.Names())
	require.Equal(t, "shop:aw-flush", shop.Flush(7))
}

// All keys of a queue are in one slot, so with one queue one node would serve the tasks of all workers.
func TestFlushesOfAClusterGoToQueuesInAllThirdsOfTheSlots(t *testing.T) {
	t.Parallel()
	client := cluster(t)
	for _, prefix := range []string{"", "shop:"} {
		queues := tasks.QueuesIn(client, prefix)
		thirds := make(map[int64]bool)
		for shard := range counter.Shard(16) {
			slot := client.ClusterKeySlot(t.Context(), tasks.PausedKey(queues.Flush(shard))).Val()
			thirds[slot*3/16384] = true
			require.Contains(t, queues.Weights(), queues.Flush(shard), "a worker serves it")
		}
		require.Len(t, thirds, 3)
	}
}

func TestTasksOfAShardShareAQueueOnACluster(t *testing.T) {
	t.Parallel()
	client := cluster(t)
	sender, queues := tasks.NewSender(client, "shop:"), tasks.QueuesIn(client, "shop:")
	inspector := asynq.NewInspectorFromRedisClient(client)
	for shard := range counter.Shard(7) {
		key := counter.Key(fmt.Sprint("k", shard))
		for _, task := range []*asynq.Task{
			tasks.Flush(key, shard), tasks.Drain(shard, 0), tasks.DrainNow(shard), tasks.SweptDrain(shard, 1),
			tasks.DrainDue(shard, tasks.DueIDs(shard, "")[0], time.Minute),
			tasks.DrainMore(shard, tasks.MoreIDs(shard, "drain:"+shard.String())[0], time.Minute),
		} {
			info, err := sender.EnqueueContext(t.Context(), task)
			require.NoError(t, err)
			require.Equal(t, queues.Flush(shard), info.Queue)
		}
		info, err := inspector.GetTaskInfo(queues.Flush(shard), tasks.FlushID(key))
		require.NoError(t, err)
		require.Equal(t, shard.String(), info.Group)
	}
	require.NotEqual(t, queues.Flush(0), queues.Flush(1))
	now := time.Now()
	for _, task := range []*asynq.Task{tasks.Sweep(now, time.Hour), tasks.Purge(now, time.Hour), tasks.Evict(now, time.Hour)} {
		info, err := sender.EnqueueContext(t.Context(), task)
		require.NoError(t, err)
		require.Equal(t, "shop:aw-sweep", info.Queue)
	}
	info, err := sender.EnqueueContext(t.Context(), tasks.Retry("a", 5, time.Minute))
	require.NoError(t, err)
	require.Equal(t, "shop:aw-retry", info.Queue)
}
