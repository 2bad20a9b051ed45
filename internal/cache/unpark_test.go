package cache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestUnparkedKeysAreDueAndTheOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupOn(t, server.URL())
	keys := b.alike(4)
	parked, dead, due, clean := keys[0], keys[1], keys[2], keys[3]
	b.bury(t, dead)
	b.warm(t, parked, due, clean)
	b.do(t, increment(parked, 1), increment(due, 1))
	const since = 1000
	require.NoError(t, b.redis.ZAdd(t.Context(), "{aw:01}:dirty", redisZ(due, since)).Err())
	require.NoError(t, b.cache.Park(t.Context(), parked, time.Hour))
	require.NoError(t, b.redis.ConfigSet(t.Context(), "maxmemory", "1").Err()) // it is a way to make room

	for range 2 {
		require.NoError(t, b.cache.Unpark(t.Context(), append(keys, parked)))
		require.Equal(t, []cache.Condition{cache.Pending, cache.IsDead, cache.Pending, cache.Clean}, b.conditions(t, 1, keys...))
		now, err := b.cache.Now(t.Context())
		require.NoError(t, err)
		left, err := b.cache.UnflushedOf(t.Context(), keys, now)
		require.NoError(t, err)
		require.GreaterOrEqual(t, left.At, now)
		left.At = 0
		require.Equal(t, cache.Unflushed{Due: 2, Dead: 1, Shards: []counter.Shard{1}}, left)
	}
	peeked, err := b.cache.PeekOldest(t.Context(), 1, 10, 0, "me", time.Minute)
	require.NoError(t, err)
	require.Len(t, peeked.Entries, 2)
	require.Equal(t, due, peeked.Entries[0].Key)
	require.Equal(t, int64(since), peeked.Entries[0].DirtySince, "it keeps its age")
	require.False(t, peeked.Entries[0].Parked)
	require.Equal(t, parked, peeked.Entries[1].Key)
	require.True(t, peeked.Entries[1].Parked, "when it became dirty is not known")
}
