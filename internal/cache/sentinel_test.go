package cache_test

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// A machine that fails takes its Sentinel along. go-redis alone would ask only this one, for ever.
func TestSentinelThatHangsDoesNotHideTheMaster(t *testing.T) {
	t.Parallel()
	master := localtest.OwnRedis(t, local.RedisOptions{Open: true})
	host, port, err := net.SplitHostPort(master.Addr())
	require.NoError(t, err)
	var watchers []*local.Redis
	var addrs []string
	for range 3 {
		watcher := localtest.OwnRedis(t, local.RedisOptions{
			Open: true, File: true, Args: []string{"--sentinel"},
			Lines: []string{fmt.Sprintf("sentinel monitor m %s %s 2", host, port)},
		})
		watchers, addrs = append(watchers, watcher), append(addrs, watcher.Addr())
	}
	b := setupOn(t, "redis-sentinel://"+strings.Join(addrs, ",")+"/0?master=m")
	b.warm(t, "k")
	require.NoError(t, b.do(t, increment("k", 1))[0].Err)
	hangs := 0
	for _, watcher := range watchers {
		client, err := cache.Connect(watcher.URL(), 1)
		require.NoError(t, err)
		clients := client.Do(t.Context(), "CLIENT", "LIST").String()
		require.NoError(t, client.Close())
		if strings.Contains(clients, "sub=2") { // to +switch-master and another channel
			hangs++
			require.NoError(t, syscall.Kill(watcher.Pid(), syscall.SIGSTOP))
			t.Cleanup(func() { _ = syscall.Kill(watcher.Pid(), syscall.SIGCONT) })
		}
	}
	require.Equal(t, 1, hangs, "the client listens to one")

	direct, err := cache.Connect(master.URL(), 1)
	require.NoError(t, err)
	t.Cleanup(func() { _ = direct.Close() })
	require.NoError(t, direct.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
	localtest.Eventually(t, 3*time.Second, func() (bool, string) {
		o := b.do(t, increment("k", 1))[0]
		return o.Err == nil, fmt.Sprint(o.Err)
	})
}

// The passwords of the sentinels and of the servers differ.
func TestSentinelsMayHaveAPassword(t *testing.T) {
	t.Parallel()
	master := localtest.OwnRedis(t, local.RedisOptions{})
	at, err := url.Parse(master.URL())
	require.NoError(t, err)
	password, _ := at.User.Password()
	watcher := localtest.OwnRedis(t, local.RedisOptions{
		File: true, Args: []string{"--sentinel"}, Lines: []string{
			fmt.Sprintf("sentinel monitor m %s %s 1", at.Hostname(), at.Port()),
			"sentinel auth-pass m " + password,
			"user reader on >s+cret allcommands",
		},
	})
	own, err := url.Parse(watcher.URL())
	require.NoError(t, err)
	of, _ := own.User.Password()
	require.NotEmpty(t, of)
	rest := ":" + password + "@" + watcher.Addr() + "/0?master=m"
	for _, parameters := range []string{
		"&sentinel_password=" + url.QueryEscape(of),
		"&sentinel_username=reader&sentinel_password=" + url.QueryEscape("s+cret"),
	} {
		b := setupOn(t, "redis-sentinel://"+rest+parameters)
		b.warm(t, "k")
		require.NoError(t, b.do(t, increment("k", 1))[0].Err)
	}
	for _, parameters := range []string{"", "&sentinel_password=other"} {
		client, err := cache.Connect("redis-sentinel://"+rest+parameters, 2)
		require.NoError(t, err)
		require.Error(t, client.Ping(t.Context()).Err())
		require.NoError(t, client.Close())
	}
}

// The client asks the Sentinels before each connection. Without an answer it has none, so a write was certainly not applied.
func TestWriteWithoutAMasterWasNotSent(t *testing.T) {
	t.Parallel()
	master := localtest.OwnRedis(t, local.RedisOptions{Open: true})
	host, port, err := net.SplitHostPort(master.Addr())
	require.NoError(t, err)
	watcher := localtest.OwnRedis(t, local.RedisOptions{
		Open: true, File: true, Args: []string{"--sentinel"}, Lines: []string{fmt.Sprintf("sentinel monitor m %s %s 1", host, port)},
	})
	unknown := setupOn(t, "redis-sentinel://"+watcher.Addr()+"/0?master=other")
	err = unknown.blind(t, increment("k", 1))[0].Err
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(err), "%v", err)

	hangs := setupOn(t, "redis-sentinel://"+watcher.Addr()+"/0?master=m")
	require.NoError(t, syscall.Kill(watcher.Pid(), syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(watcher.Pid(), syscall.SIGCONT) })
	err = hangs.blind(t, increment("k", 1))[0].Err
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(err), "%v", err)
}

// Until all Sentinels know of a failover they name two masters. A slow answer of either is no reason to lose it.
func TestSentinelsThatDisagreeCloseNoConnectionToAMaster(t *testing.T) {
	t.Parallel()
	var servers []redis.UniversalClient
	var addrs []string
	for range 2 {
		_, addr, server := watchedServer(t)
		servers, addrs = append(servers, server), append(addrs, addr)
	}
	client, err := cache.Connect("redis-sentinel://"+strings.Join(addrs, ",")+"/0?master=m", 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())

	for _, server := range servers {
		require.NoError(t, server.ClientPause(t.Context(), time.Second).Err())
	}
	require.NoError(t, client.Set(t.Context(), "k", "w", 0).Err())
}

// A server that has become a replica refuses writes, but it answers reads.
func TestRefusalWithoutSentinelsClosesNoOtherConnection(t *testing.T) {
	t.Parallel()
	sentinel, addr, server := watchedServer(t)
	client, err := cache.Connect("redis-sentinel://"+addr+"/0?master=m", pooled)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	useAll(t, client)
	sentinel.Kill()
	require.NoError(t, server.ReplicaOf(t.Context(), "127.0.0.1", "1").Err())

	require.ErrorContains(t, client.Set(t.Context(), "k", "v", 0).Err(), "READONLY")
	require.ErrorIs(t, client.Get(t.Context(), "k").Err(), redis.Nil)
}

// watchedServer starts a Redis and a Sentinel that knows it as master m. It returns the Sentinel with its address, and a client of the Redis.
func watchedServer(t *testing.T) (sentinel *local.Redis, addr string, server redis.UniversalClient) {
	t.Helper()
	master := localtest.OwnRedis(t, local.RedisOptions{Open: true})
	host, port, err := net.SplitHostPort(master.Addr())
	require.NoError(t, err)
	sentinel = localtest.OwnRedis(t, local.RedisOptions{
		Open: true, File: true, Args: []string{"--sentinel"}, Lines: []string{fmt.Sprintf("sentinel monitor m %s %s 1", host, port)},
	})
	server, err = cache.Connect(master.URL(), 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	return sentinel, sentinel.Addr(), server
}

// A call that hangs on a former master ends as soon as another server is known to be the master, and not at its time-out of 3 s.
func TestCallThatHangsOnAFormerMasterEnds(t *testing.T) {
	t.Parallel()
	former, master := localtest.OwnRedis(t, local.RedisOptions{Open: true}), localtest.OwnRedis(t, local.RedisOptions{Open: true})
	address := func(server *local.Redis) (host, port string) {
		host, port, err := net.SplitHostPort(server.Addr())
		require.NoError(t, err)
		return host, port
	}
	host, port := address(former)
	watcher := localtest.OwnRedis(t, local.RedisOptions{
		Open: true, File: true, Args: []string{"--sentinel"}, Lines: []string{fmt.Sprintf("sentinel monitor m %s %s 1", host, port)},
	})
	sentinel, err := cache.Connect(watcher.URL(), 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sentinel.Close()) })
	client, err := cache.Connect("redis-sentinel://"+watcher.Addr()+"/0?master=m", 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	require.NoError(t, client.Set(t.Context(), "k", "former", 0).Err())

	require.NoError(t, syscall.Kill(former.Pid(), syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(former.Pid(), syscall.SIGCONT) })
	host, port = address(master)
	require.NoError(t, sentinel.Do(t.Context(), "SENTINEL", "REMOVE", "m").Err())
	require.NoError(t, sentinel.Do(t.Context(), "SENTINEL", "MONITOR", "m", host, port, 1).Err())
	started := time.Now()
	require.Error(t, client.Set(t.Context(), "k", "lost", 0).Err())
	require.Less(t, time.Since(started), 2*time.Second)
	require.NoError(t, client.Set(t.Context(), "k", "new", 0).Err())
}
