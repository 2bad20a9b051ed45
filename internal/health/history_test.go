package health

import (
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/tasks"
)

func recorded(t *testing.T, client redis.UniversalClient, s Sample) bool {
	t.Helper()
	added, err := record(t.Context(), client, "", s)
	require.NoError(t, err)
	return added
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	for i := range int64(Kept + 50) {
		require.True(t, recorded(t, client, Sample{At: i * 1000, Dirty: i}))
	}
	require.EqualValues(t, Kept, client.LLen(t.Context(), "aw:history").Val())

	samples, err := readHistory(t.Context(), client, "", (Kept+49)*1000)
	require.NoError(t, err)
	require.Len(t, samples, Kept)
	require.EqualValues(t, 50, samples[0].Dirty)
	require.EqualValues(t, Kept+49, samples[Kept-1].Dirty)

	later, err := readHistory(t.Context(), client, "", (2*Kept+39)*1000)
	require.NoError(t, err)
	require.Len(t, later, 10, "what is older than 15 minutes is not shown")
}

func TestTwoDashboardsRecordASecondOnce(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	require.True(t, recorded(t, client, Sample{At: 5_000_100}))
	require.False(t, recorded(t, client, Sample{At: 5_000_900}))
	require.False(t, recorded(t, client, Sample{At: 4_999_900}), "one that is late")
	require.True(t, recorded(t, client, Sample{At: 5_001_000}))
	require.True(t, recorded(t, client, Sample{At: 1_000_000}), "but a clock that was set back does not stop it")
}

func TestHistoryIsRecordedInAFullRedis(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	client, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	require.NoError(t, client.ConfigSet(t.Context(), "maxmemory", "1").Err())
	require.True(t, recorded(t, client, Sample{At: 1000}))
}

func TestSnapshotCoversAllShardsAndProcesses(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	c := cache.New(client, cache.Options{Shards: 64, CleanTTL: time.Hour})
	now, err := c.Now(t.Context())
	require.NoError(t, err)
	localtest.OpenEpoch(t, client, "07", time.UnixMilli(now-5000), "waits")
	require.NoError(t, client.ZAdd(t.Context(), "{aw:07}:retry", redis.Z{Score: float64(now + 60_000), Member: "is retried"}).Err())
	require.NoError(t, client.HSet(t.Context(), "{aw:07}:dead", "is dead", "{}").Err())

	snapshot, err := newSampler(c, client).take(t.Context())

	require.NoError(t, err)
	require.Len(t, snapshot.Shards, 64)
	require.EqualValues(t, 2, snapshot.Shards[7].Dirty)
	require.EqualValues(t, 1, snapshot.Retrying)
	require.EqualValues(t, 1, snapshot.Dead)
	require.GreaterOrEqual(t, snapshot.Oldest, int64(5000))
	require.Less(t, snapshot.Oldest, int64(60_000))
	require.GreaterOrEqual(t, snapshot.At, now)
	require.NotEmpty(t, snapshot.Redis.Version)
	require.Empty(t, snapshot.Processes)
}

func TestSnapshotListsPausedQueues(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	sampler := newSampler(cache.New(client, cache.Options{Shards: 2, CleanTTL: time.Hour}), client)
	pausedNow := func() []string {
		snapshot, err := sampler.take(t.Context())
		require.NoError(t, err)
		return snapshot.Paused
	}
	require.Empty(t, pausedNow())
	inspector := asynq.NewInspectorFromRedisClient(client)
	for _, queue := range []string{tasks.QueueSweep, tasks.QueueFlush, "another"} {
		require.NoError(t, inspector.PauseQueue(queue))
	}
	require.Equal(t, []string{tasks.QueueFlush, tasks.QueueSweep}, pausedNow())
	require.NoError(t, inspector.UnpauseQueue(tasks.QueueSweep))
	require.NoError(t, client.Del(t.Context(), tasks.PausedKey(tasks.QueueFlush)).Err(), "as the dashboard says")
	require.Empty(t, pausedNow())
}

func TestSampleIsTakenAlthoughPruneFails(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	client, err := cache.Connect(server.URL(), 4)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	require.NoError(t, client.HSet(t.Context(), HeartbeatKey, "long gone", "1 {}").Err())
	require.NoError(t, client.ReplicaOf(t.Context(), "127.0.0.1", "1").Err())

	snapshot, err := newSampler(cache.New(client, cache.Options{Shards: 64, CleanTTL: time.Hour}), client).take(t.Context())

	require.NoError(t, err)
	require.Equal(t, "READONLY", snapshot.Refusal)
	require.Equal(t, "slave", snapshot.Redis.Role)
	_, err = record(t.Context(), client, "", snapshot.Sample)
	require.Equal(t, "READONLY", cache.Refusal(err), "a script says so too")
}

func TestCoalescingCoversTheLastMinute(t *testing.T) {
	t.Parallel()
	c := Snapshot{Sample: Sample{At: 100_000}, History: []Sample{
		{At: 30_000, Writes: 1e9, Rows: 1}, {At: 50_000, Writes: 30, Rows: 2}, {At: 100_000, Writes: 20, Rows: 3},
	}}
	require.InDelta(t, 10, c.Coalescing(), 0)
	require.Zero(t, Snapshot{}.Coalescing())
}

func TestRememberIsBoundedAndFollowsTheClock(t *testing.T) {
	t.Parallel()
	var history []Sample
	for i := range int64(2 * Kept) {
		history = remember(history, Sample{At: i * 500}) // two samples a second
	}
	require.Len(t, history, Kept)
	older := history[:10]
	history = remember(history, Sample{At: history[9].At + 1, Dirty: 7}) // the clock was set back
	require.Len(t, history, 11)
	require.EqualValues(t, 7, history[10].Dirty)
	history = remember(history, Sample{At: 1e9})
	require.Len(t, history, 1, "what is older than 15 minutes is gone")
	require.Len(t, older, 10)
}
