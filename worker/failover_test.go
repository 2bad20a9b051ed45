package worker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// setupRestartable returns a bundle on a Redis that keeps its data when it is killed.
func setupRestartable(t *testing.T) (*testBundle, *local.Redis) {
	t.Helper()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	return setupOn(t, server.URL(), localtest.PostgresURL(t, migrate), map[string]string{"AFTERWRITE_SHARDS": "1"}), server
}

// A failover loses tasks, and a sweep would find their keys only seconds later.
func TestWaitingShardsAreFlushedAtOnceAfterAFailureOfRedis(t *testing.T) {
	t.Parallel()
	b, server := setupRestartable(t)
	b.do(t, increment("a", 1)) // the bundle sends no tasks, and no scheduler runs
	b.run(t)

	server.Kill()
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		_, failed := b.cache.SinceFailure()
		return failed, "the worker does not notice"
	})
	require.NoError(t, server.Start(t.Context()))

	b.eventuallyClean(t, 5*time.Second) // without a failure it would be 12 s and more
	b.requireRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
}

// Otherwise the shard would wait for the end of the lease.
func TestLeaseIsReleasedOnceRedisAnswersAgain(t *testing.T) {
	t.Parallel()
	b, server := setupRestartable(t)
	b.do(t, increment("a", 1))
	letGo := b.holdUpserts(t)
	drained := make(chan error, 1)
	f := b.worker.Flusher(0)
	go func() {
		_, err := f.Drain(t.Context(), 0, "test", 0)
		drained <- err
	}()
	b.eventuallyWaiting(t)

	server.Kill()
	letGo()
	localtest.Eventually(t, 5*time.Second, func() (bool, string) {
		_, failed := b.cache.SinceFailure()
		return failed, "the drain does not notice"
	})
	require.NoError(t, server.Start(t.Context()))

	localtest.Eventually(t, 2*time.Second, func() (bool, string) {
		left, err := b.redis.PTTL(t.Context(), "{aw:00}:drain").Result()
		return err == nil && left == -2, fmt.Sprint(left, err)
	})
	require.Error(t, <-drained)
	require.Equal(t, int64(1), b.backlog(t).Dirty)
}
