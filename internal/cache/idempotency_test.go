package cache_test

import (
	"context"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// with gives an operation an ID.
func with(id string, op counter.Operation) counter.Operation {
	op.ID = id
	return op
}

// replay returns the outcome of repeating the operation that had the outcome first.
func replay(first cache.Outcome) cache.Outcome {
	first.Backlog, first.Replayed = 0, true
	return bare(first)
}

func (b *testBundle) recordKey(key counter.Key, id string) string {
	return "{aw:" + b.cache.Shard(key).String() + "}:i:" + id + "\x00" + string(key)
}

func TestOneIDSent200TimesInParallelCountsOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	outcomes := make([]cache.Outcome, 200)
	var group sync.WaitGroup
	for i := range outcomes {
		group.Go(func() {
			outcomes[i] = b.writer.Do(context.Background(), []cache.Write{{Operation: with("id", increment("a", 3))}})[0]
		})
	}
	group.Wait()

	replays := 0
	for _, o := range outcomes {
		require.NoError(t, o.Err)
		require.Equal(t, int64(3), o.Value)
		require.Equal(t, int64(1), o.Version)
		if o.Replayed {
			require.Zero(t, o.Backlog, "it made nothing dirty")
			replays++
		}
	}
	require.Equal(t, 199, replays)
	require.Equal(t, map[string]string{"v": "3", "n": "1"}, b.entry(t, "a"))
}

func TestAnotherOperationWithTheSameIDIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "b")
	first := b.do(t, with("id", increment("a", 1)))[0]

	got := b.do(t, with("id", increment("a", 2)), with("id", set("a", 1)), with("id", del("a")), with("id", increment("a", 1)),
		with("id", increment("b", 1)), with("id2", increment("a", 1)))

	for _, o := range got[:3] {
		require.Equal(t, counter.CodeIdempotencyKeyReused, counter.CodeOf(o.Err))
	}
	require.Equal(t, replay(first), bare(got[3]))
	require.Equal(t, int64(1), got[4].Value, "IDs are per counter")
	require.False(t, got[4].Replayed)
	require.Equal(t, int64(2), got[5].Value)
}

// The record holds the answer, so a replay works even if the entry is gone.
func TestReplayNeedsNoEntry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.True(t, b.do(t, with("id", increment("a", 1)))[0].Cold, "not applied, so not recorded")
	b.hydrate(t, cache.Base{Key: "a", Row: counter.Row{Value: 41, Version: 9}, Found: true}, cache.Hydrated)
	first := b.do(t, with("id", increment("a", 1)))[0]
	require.Equal(t, int64(42), first.Value)
	b.flush(t, "a")
	require.NoError(t, b.redis.Del(t.Context(), b.entryKey("a")).Err())

	got := b.do(t, with("id", increment("a", 1)), increment("a", 1))

	require.Equal(t, replay(first), bare(got[0]))
	require.True(t, got[1].Cold)
}

func TestBlindWritesAreReplayedWithoutAValue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.False(t, b.blind(t, with("id", increment("a", 5)))[0].Replayed)

	got := append(b.blind(t, with("id", increment("a", 5))), b.do(t, with("id", increment("a", 5)))...)

	for _, o := range got {
		require.Equal(t, cache.Outcome{Exists: true, Replayed: true}, bare(o))
	}
	require.Equal(t, "5", b.entry(t, "a")["v"])
}

func TestDeleteOfADeletedCounterIsRecorded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", 1), del("a"))
	first := b.do(t, with("id", del("a")))[0]
	require.False(t, first.Exists)
	b.do(t, set("a", 7))

	require.Equal(t, replay(first), bare(b.do(t, with("id", del("a")))[0]))

	require.Equal(t, int64(7), b.do(t, get("a"))[0].Value)
}

func TestRefusedOperationIsNotRecorded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "clean")
	b.do(t, set("a", math.MaxInt64))
	require.Equal(t, counter.CodeOverflow, counter.CodeOf(b.do(t, with("id", increment("a", 1)))[0].Err))
	w := b.cache.NewWriter(func() bool { return false })
	t.Cleanup(w.Close)
	o := w.Do(t.Context(), []cache.Write{{Operation: with("id", increment("clean", 1))}})[0]
	require.Equal(t, counter.CodeBackpressure, counter.CodeOf(o.Err))

	got := b.do(t, set("a", 1), with("id", increment("a", 1)), with("id", increment("clean", 1)))

	require.Equal(t, int64(2), got[1].Value)
	require.Equal(t, int64(1), got[2].Value)
	require.False(t, got[1].Replayed || got[2].Replayed)
}

func TestReplaysWorkUnderBackpressure(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	first := b.do(t, with("id", increment("a", 1)))[0]
	b.flush(t, "a")
	w := b.cache.NewWriter(func() bool { return false })
	t.Cleanup(w.Close)
	require.Equal(t, replay(first), bare(w.Do(t.Context(), []cache.Write{{Operation: with("id", increment("a", 1))}})[0]))
}

func TestRecordsExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, with("id", increment("a", 1)))
	require.Greater(t, b.redis.PTTL(t.Context(), b.recordKey("a", "id")).Val(), 23*time.Hour)

	short := cache.New(b.redis, cache.Options{Shards: testShards, CleanTTL: time.Hour, RecordTTL: 20 * time.Millisecond})
	w := short.NewWriter(func() bool { return true })
	t.Cleanup(w.Close)
	w.Do(t.Context(), []cache.Write{{Operation: with("short", increment("a", 1))}})
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		return b.redis.Exists(t.Context(), b.recordKey("a", "short")).Val() == 0, "the record is still there"
	})
	require.Equal(t, int64(3), b.do(t, with("short", increment("a", 1)))[0].Value, "it counts again")
}

func TestRecordOfAnUnexpectedTypeIsNeitherReadNorOverwritten(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	require.NoError(t, b.redis.LPush(t.Context(), b.recordKey("a", "id"), "x").Err())
	require.Equal(t, counter.CodeInternal, counter.CodeOf(b.do(t, with("id", increment("a", 1)))[0].Err))
	require.Equal(t, "0", b.entry(t, "a")["v"])
}

func TestFullRedisKeepsNeitherTheWriteNorItsRecord(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL())
	b.warm(t, "a")
	kept := b.do(t, with("kept", increment("a", 1)))[0]
	b.fill(t)

	require.Equal(t, replay(kept), bare(b.do(t, with("kept", increment("a", 1)))[0]), "a replay writes nothing")
	require.Equal(t, counter.CodeCacheFull, counter.CodeOf(b.do(t, with("id", increment("a", 1)))[0].Err))

	b.empty(t)
	got := b.do(t, with("id", increment("a", 1)))[0]
	require.Equal(t, int64(2), got.Value)
	require.False(t, got.Replayed)
}

func TestIdempotencyWorksOnACluster(t *testing.T) {
	t.Parallel()
	_, clusterURL := cluster(t)
	b := setupOn(t, clusterURL)
	ops := make([]counter.Operation, 0, 40)
	for i := range 20 {
		key := counter.Key("k" + strconv.Itoa(i))
		b.warm(t, key)
		ops = append(ops, increment(key, 1), with("id", increment(key, 5)))
	}
	first := b.do(t, ops...)

	second := b.do(t, ops...)

	for i := 1; i < len(ops); i += 2 {
		require.NoError(t, first[i].Err)
		require.Equal(t, int64(6), first[i].Value)
		require.Equal(t, replay(first[i]), bare(second[i]))
		require.Equal(t, int64(7), second[i-1].Value)
	}
}

// TestRecordIsSmall checks the size that docs/api.md gives.
func TestRecordIsSmall(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key, id := counter.Key("page:home"), "0b7a1c1e-6f6e-4f0c-9a39-3f6f4a0a8f11"
	b.warm(t, key)
	b.do(t, with(id, increment(key, 1)))
	size, err := b.redis.MemoryUsage(t.Context(), b.recordKey(key, id)).Result()
	require.NoError(t, err)
	require.LessOrEqual(t, size, int64(200))
	t.Logf("%d bytes", size)
}
