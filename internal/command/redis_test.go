package command

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func connect(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	client, err := cache.Connect(url, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func cacheAt(t *testing.T, url string) *cache.Cache {
	t.Helper()
	return cache.New(connect(t, url), cache.Options{Shards: cache.DefaultShards, CleanTTL: time.Hour})
}

func TestAwaitRedisWaitsForARedisThatComesUp(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	require.NoError(t, server.Stop(t.Context()))
	log := newSignalLog()

	c := cacheAt(t, server.URL())
	result := make(chan error, 1)
	go func() {
		result <- awaitRedis(t.Context(), c, server.URL(), time.Minute, slog.New(slog.NewTextHandler(log, nil)))
	}()
	<-log.logged // it has found that there is none
	require.NoError(t, server.Start(t.Context()))

	require.NoError(t, <-result)
	require.Equal(t, 1, strings.Count(log.String(), "waiting for redis"))
}

// A cluster that is down answers PING: a process that took that for Redis would begin to serve, and refuse every write.
func TestAwaitRedisWaitsForAClusterThatIsDown(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--cluster-enabled", "yes"}})
	node := connect(t, server.URL())
	// One slot is missing, and with it all of them.
	require.NoError(t, node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 1, 16383).Err())
	url := strings.Replace(server.URL(), "redis://", "redis-cluster://", 1)
	c := cacheAt(t, url)
	log := newSignalLog()
	result := make(chan error, 1)
	go func() {
		result <- awaitRedis(t.Context(), c, url, time.Minute, slog.New(slog.NewTextHandler(log, nil)))
	}()
	<-log.logged
	require.Contains(t, log.String(), "CLUSTERDOWN")

	require.NoError(t, node.Do(t.Context(), "CLUSTER", "ADDSLOTS", 0).Err())
	require.NoError(t, <-result)
}

func TestAwaitRedisGivesUpWithOneLineThatHidesThePassword(t *testing.T) {
	t.Parallel()
	const url = "redis://me:hunter2@127.0.0.1:1/0"

	err := awaitRedis(t.Context(), cacheAt(t, url), url, 0, slog.New(slog.DiscardHandler))

	require.ErrorContains(t, err, "redis at redis://me:xxxxx@127.0.0.1:1/0 does not answer")
	require.ErrorContains(t, err, "start it, or correct REDIS_URL")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestAwaitRedisDoesNotWaitForAPasswordToBecomeRight(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	url := "redis://:wrong@" + server.Addr() + "/0"

	err := awaitRedis(t.Context(), cacheAt(t, url), url, time.Hour, slog.New(slog.DiscardHandler))

	require.ErrorContains(t, err, "does not let us in")
	require.ErrorContains(t, err, "WRONGPASS")
}

func TestAwaitRedisEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := awaitRedis(ctx, cacheAt(t, "redis://127.0.0.1:1/0"), "redis://127.0.0.1:1/0", time.Hour, slog.New(slog.DiscardHandler))
	require.ErrorIs(t, err, context.Canceled)
}

// redisError is an error that Redis answers with.
type redisError string

func (e redisError) Error() string { return string(e) }
func (redisError) RedisError()     {}

func TestOnlyAnswersThatStayTheSameEndTheWait(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"WRONGPASS invalid username-password pair": true, "NOAUTH Authentication required.": true,
		"ERR DB index is out of range": true, "NOPERM this user has no permissions": true,
		"LOADING Redis is loading the dataset in memory": false, "MASTERDOWN Link with MASTER is down": false,
		"CLUSTERDOWN The cluster is down": false, "ERR max number of clients reached": false,
	} {
		require.Equal(t, want, refusesUs(redisError(text)), text)
	}
	require.False(t, refusesUs(errors.New("connection refused")))
}

// signalLog is a log that says when the first line has been written.
type signalLog struct {
	mu     sync.Mutex
	once   sync.Once
	text   bytes.Buffer
	logged chan struct{}
}

func newSignalLog() *signalLog { return &signalLog{logged: make(chan struct{})} }

func (l *signalLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.once.Do(func() { close(l.logged) })
	return l.text.Write(p)
}

func (l *signalLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
