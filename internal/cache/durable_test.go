package cache_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// On a cluster, each node confirms its own writes.
func TestEachNodeConfirmsItsWrites(t *testing.T) {
	t.Parallel()
	clusterURL, second := two(t)
	b := setupOn(t, clusterURL)
	writes := make([]cache.Write, 0, testShards) // one for each shard
	for i := 0; len(writes) < testShards; i++ {
		if key := counter.Key("k" + strconv.Itoa(i)); int(b.cache.Shard(key)) == len(writes) {
			writes = append(writes, cache.Write{Operation: increment(key, 1), Blind: true})
		}
	}
	confirmed := func(w *cache.Writer) (errs []error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for _, o := range w.DoUntil(t.Context(), writes, time.Now().Add(20*time.Second)) {
			if o.Err != nil {
				errs = append(errs, o.Err)
			} else {
				errs = append(errs, o.Confirmation.Await(ctx, time.Now().Add(time.Minute)))
			}
		}
		return errs
	}
	yes := func() bool { return true }
	alone := b.cache.NewDurableWriter(yes, cache.OnReplicas, 0) // no replica is needed
	t.Cleanup(alone.Close)
	for _, err := range confirmed(alone) {
		require.NoError(t, err)
	}

	one := b.cache.NewDurableWriter(yes, cache.OnReplicas, 1)
	t.Cleanup(one.Close)
	for _, o := range one.DoUntil(t.Context(), writes, time.Now().Add(20*time.Millisecond)) {
		require.NoError(t, o.Err)
		require.ErrorIs(t, o.Confirmation.Await(t.Context(), time.Now().Add(time.Minute)), cache.ErrNotReached)
	}

	second.Kill()
	errs := confirmed(alone)
	require.Error(t, errs[0])
	for _, err := range errs[1:] {
		require.NoError(t, err, "a dead node fails only its own shards")
	}
}

func TestTooFewReplicasForRedisAreNamed(t *testing.T) {
	t.Parallel()
	b := setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL())
	require.NoError(t, b.redis.ConfigSet(t.Context(), "min-replicas-to-write", "1").Err())
	o := b.writer.Do(t.Context(), []cache.Write{{Operation: increment("a", 1), Blind: true}})[0]
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(o.Err))
	require.ErrorContains(t, o.Err, "min-replicas-to-write")
	require.ErrorContains(t, o.Err, "not applied")
	_, err := b.cache.Hydrate(t.Context(), []cache.Base{{Key: "a"}})
	require.ErrorContains(t, cache.Unapplied(err), "min-replicas-to-write")
	require.Empty(t, b.redis.Keys(t.Context(), "*").Val())
}
