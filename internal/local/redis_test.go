package local_test

import (
	"bytes"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
)

func TestRedisKeepsDataThroughStopAndStart(t *testing.T) {
	t.Parallel()
	for name, socket := range map[string]bool{"tcp": false, "socket": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			r := startRedis(t, local.RedisOptions{Dir: dataDir(t), Socket: socket, AppendOnly: true})
			client := redisClient(t, r)
			url, pid, done := r.URL(), r.Pid(), r.Done()
			require.Equal(t, socket, strings.HasPrefix(url, "unix://"), url)
			require.NoError(t, client.Set(ctx, "k", "v", 0).Err())

			require.NoError(t, r.Stop(ctx))
			requireEnded(t, done)
			require.Error(t, client.Ping(ctx).Err())
			require.NoError(t, r.Stop(ctx), "a second Stop is no error")

			require.NoError(t, r.Start(ctx))
			require.NoError(t, r.Start(ctx), "a second Start is no error")
			require.Equal(t, url, r.URL())
			require.NotEqual(t, pid, r.Pid())
			require.Equal(t, "v", client.Get(ctx, "k").Val())
		})
	}
}

func TestRedisKeepsAppendedDataThroughKill(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	r := startRedis(t, local.RedisOptions{Dir: dataDir(t), AppendOnly: true, AppendFsync: "always"})
	client := redisClient(t, r)

	for round := range 5 {
		require.NoError(t, client.Incr(ctx, "rounds").Err())
		done := r.Done()
		r.Kill()
		requireEnded(t, done)
		require.ErrorIs(t, r.Err(), local.ErrExited)
		require.ErrorContains(t, r.Err(), "killed")
		require.NoError(t, r.Start(ctx))
		require.NoError(t, r.Err())
		require.Equal(t, strconv.Itoa(round+1), client.Get(ctx, "rounds").Val())
	}
}

func TestRedisRequiresThePasswordAndDoesNotEvict(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	r := startRedis(t, local.RedisOptions{Dir: dataDir(t), Databases: 40, Args: []string{"--maxmemory", "64mb"}})
	client := redisClient(t, r)

	config := func(name string) string { return client.ConfigGet(ctx, name).Val()[name] }
	require.Equal(t, "noeviction", config("maxmemory-policy"))
	require.Equal(t, "40", config("databases"))
	require.Equal(t, strconv.Itoa(64<<20), config("maxmemory"))
	require.Empty(t, config("save"))

	conn, err := net.Dial("tcp", r.Addr())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("PING\r\n"))
	require.NoError(t, err)
	reply := make([]byte, 64)
	n, err := conn.Read(reply)
	require.NoError(t, err)
	require.Contains(t, string(reply[:n]), "NOAUTH")

	cmdline, err := os.ReadFile("/proc/" + strconv.Itoa(r.Pid()) + "/cmdline")
	if err == nil { // Linux
		password, err := os.ReadFile(r.Dir() + "/password")
		require.NoError(t, err)
		require.NotContains(t, string(cmdline), strings.TrimSpace(string(password)))
	}
}

func TestRedisFallsBackToTCPWhenTheSocketPathIsTooLong(t *testing.T) {
	t.Parallel()
	r := startRedis(t, local.RedisOptions{Dir: dataDir(t) + "/" + strings.Repeat("long/", 20), Socket: true})
	require.True(t, strings.HasPrefix(r.URL(), "redis://"), r.URL())
	require.NoError(t, redisClient(t, r).Ping(bounded(t)).Err())
}

func TestRedisFolderMayHaveSpacesAndQuotes(t *testing.T) {
	t.Parallel()
	r := startRedis(t, local.RedisOptions{Dir: dataDir(t) + `/a "b" \c`, Socket: true})
	require.NoError(t, redisClient(t, r).Ping(bounded(t)).Err())
}

func TestRedisPortTaken(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()

	_, err = local.StartRedis(bounded(t), local.RedisOptions{Dir: dataDir(t), Port: listener.Addr().(*net.TCPAddr).Port})
	require.ErrorIs(t, err, local.ErrPortTaken)
	requireOneLine(t, err)
}

func TestErrorOfAFailedRedisShowsItsLog(t *testing.T) {
	t.Parallel()
	_, err := local.StartRedis(bounded(t), local.RedisOptions{Dir: dataDir(t), Args: []string{"--no-such-setting", "1"}})
	require.ErrorIs(t, err, local.ErrExited)
	require.ErrorContains(t, err, "no-such-setting")
}

func TestRedisFolderInUse(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	dir := dataDir(t)
	first := startRedis(t, local.RedisOptions{Dir: dir})

	_, err := local.StartRedis(ctx, local.RedisOptions{Dir: dir})
	require.ErrorIs(t, err, local.ErrLocked)
	require.ErrorContains(t, err, strconv.Itoa(os.Getpid()))
	requireOneLine(t, err)

	require.NoError(t, first.Stop(ctx))
	startRedis(t, local.RedisOptions{Dir: dir})
}

func TestRedisNotInstalled(t *testing.T) {
	t.Parallel()
	_, err := local.StartRedis(bounded(t), local.RedisOptions{Dir: dataDir(t), Program: "no-such-redis-server"})
	require.ErrorIs(t, err, local.ErrNotInstalled)
	require.ErrorContains(t, err, "`make deps`")
	requireOneLine(t, err)
}

func TestRedisFolderNotWritable(t *testing.T) {
	t.Parallel()
	file := dataDir(t)
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := local.StartRedis(bounded(t), local.RedisOptions{Dir: file + "/below-a-file"})
	require.ErrorIs(t, err, local.ErrNotWritable)
	requireOneLine(t, err)
}

func TestStopKillsAHangingRedis(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	r := startRedis(t, local.RedisOptions{Dir: dataDir(t)})
	require.NoError(t, syscall.Kill(r.Pid(), syscall.SIGSTOP))

	ended, cancel := contextDone(ctx)
	defer cancel()
	require.ErrorIs(t, r.Stop(ended), local.ErrKilled)
	requireEnded(t, r.Done())
}

func TestRedisLogGoesToTheWriter(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	var log syncBuffer
	r := startRedis(t, local.RedisOptions{Dir: dataDir(t), Log: &log})
	require.NoError(t, r.Stop(ctx))
	require.Contains(t, log.String(), "Ready to accept connections")
	require.Contains(t, r.LastLog(), "bye")
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestRedisKeepsTheSettingsThatItHasWritten(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	r := startRedis(t, local.RedisOptions{Dir: dataDir(t), File: true, Open: true, Lines: []string{"maxclients 100"}})
	require.NotContains(t, r.URL(), "@", "it has no password")
	client := redisClient(t, r)
	require.Equal(t, "100", client.ConfigGet(ctx, "maxclients").Val()["maxclients"])
	require.NoError(t, client.ConfigSet(ctx, "maxclients", "200").Err())
	require.NoError(t, client.ConfigRewrite(ctx).Err())

	r.Kill()
	require.NoError(t, r.Start(ctx))
	require.Equal(t, "200", client.ConfigGet(ctx, "maxclients").Val()["maxclients"])
}
