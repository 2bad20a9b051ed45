package process

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// serversAt returns Servers without Postgres.
func serversAt(t *testing.T, url string, log io.Writer) *Servers {
	t.Helper()
	s, err := Connect(config.Config{RedisURL: url, Shards: cache.DefaultShards, CleanTTL: time.Hour},
		slog.New(slog.NewTextHandler(log, nil)), Pools{Redis: 2})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func TestAwaitRedisWaitsForRedisToStart(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	require.NoError(t, server.Stop(t.Context()))
	log := new(localtest.Buffer)

	s := serversAt(t, server.URL(), log)
	result := make(chan error, 1)
	go func() { result <- s.AwaitRedis(t.Context(), time.Minute) }()
	localtest.Eventually(t, time.Minute, func() (bool, string) {
		return strings.Contains(log.String(), "waiting for redis"), log.String()
	})
	require.NoError(t, server.Start(t.Context()))

	require.NoError(t, <-result)
	require.Equal(t, 1, strings.Count(log.String(), "waiting for redis"))
}

// A cluster that is down answers PING. A process that relied on it would start, and refuse every write.
func TestAwaitRedisWaitsForAClusterThatIsDown(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--cluster-enabled", "yes"}})
	node := connect(t, server.URL())
	// One slot has no node, so the cluster serves none.
	require.NoError(t, node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 1, 16383).Err())
	log := new(localtest.Buffer)
	s := serversAt(t, strings.Replace(server.URL(), "redis://", "redis-cluster://", 1), log)
	result := make(chan error, 1)
	go func() { result <- s.AwaitRedis(t.Context(), time.Minute) }()
	localtest.Eventually(t, time.Minute, func() (bool, string) {
		return strings.Contains(log.String(), "CLUSTERDOWN"), log.String()
	})

	require.NoError(t, node.Do(t.Context(), "CLUSTER", "ADDSLOTS", 0).Err())
	require.NoError(t, <-result)
}

func TestAwaitRedisErrorHidesThePassword(t *testing.T) {
	t.Parallel()
	err := serversAt(t, "redis://me:hunter2@127.0.0.1:1/0", io.Discard).AwaitRedis(t.Context(), 0)

	require.ErrorContains(t, err, "redis at redis://me:xxxxx@127.0.0.1:1/0 does not answer")
	require.ErrorContains(t, err, "start it, or correct REDIS_URL")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestAwaitRedisDoesNotWaitAfterAWrongPassword(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})

	err := serversAt(t, "redis://:wrong@"+server.Addr()+"/0", io.Discard).AwaitRedis(t.Context(), time.Hour)

	require.ErrorContains(t, err, "rejects the connection")
	require.ErrorContains(t, err, "WRONGPASS")
}

func TestAwaitRedisEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := serversAt(t, "redis://127.0.0.1:1/0", io.Discard).AwaitRedis(ctx, time.Hour)
	require.ErrorIs(t, err, context.Canceled)
}

// redisError is an error that Redis answers with.
type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}

func TestOnlyPermanentErrorsEndTheWait(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"WRONGPASS invalid username-password pair": true, "NOAUTH Authentication required.": true,
		"ERR DB index is out of range": true, "NOPERM this user has no permissions": true,
		"LOADING Redis is loading the dataset in memory": false, "MASTERDOWN Link with MASTER is down": false,
		"CLUSTERDOWN The cluster is down": false, "ERR max number of clients reached": false,
	} {
		require.Equal(t, want, rejects(redisError(text)), text)
	}
	require.False(t, rejects(errors.New("connection refused")))
}
