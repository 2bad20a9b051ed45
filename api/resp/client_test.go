package resp_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestGoRedisCountsAsWithRedis(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, protocol := range []int{2, 3} {
		c := b.client(t, func(o *redis.Options) { o.Protocol, o.ClientName = protocol, "test" })
		ctx, key := t.Context(), fmt.Sprintf("k%d", protocol)
		require.ErrorIs(t, c.Get(ctx, key).Err(), redis.Nil)
		require.EqualValues(t, 1, c.Incr(ctx, key).Val())
		require.EqualValues(t, 6, c.IncrBy(ctx, key, 5).Val())
		require.NoError(t, c.Set(ctx, key, 10, 0).Err())
		require.True(t, c.SetNX(ctx, key+"nx", 1, 0).Val())
		require.False(t, c.SetNX(ctx, key+"nx", 1, 0).Val())
		require.Equal(t, []any{"10", nil}, c.MGet(ctx, key, "none").Val())
		require.NoError(t, c.Ping(ctx).Err())

		results, err := c.Pipelined(ctx, func(p redis.Pipeliner) error {
			for range 16 {
				p.Incr(ctx, key)
			}
			return nil
		})
		require.NoError(t, err)
		require.EqualValues(t, 26, results[15].(*redis.IntCmd).Val())
		results, err = c.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Incr(ctx, key)
			p.Get(ctx, key)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, "27", results[1].(*redis.StringCmd).Val())
		require.Error(t, c.Set(ctx, key, "text", 0).Err())
		require.EqualValues(t, 1, c.Del(ctx, key).Val())
	}
	b.flush(t)
	var found []string
	keys := b.client(t).Scan(t.Context(), 0, "k*", 1).Iterator()
	for keys.Next(t.Context()) {
		found = append(found, keys.Val())
	}
	require.NoError(t, keys.Err())
	require.Equal(t, []string{"k2nx", "k3nx"}, found)
}

func TestRESP3HasNullsAndMaps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.dial(t)
	require.Contains(t, w.one("HELLO 3 SETNAME me"), "%7 server redis version 7.2.0 proto :3 id :")
	require.Equal(t, []string{"_", "*2 _ _", "_", "%1 save ", "me"},
		w.do("GET a", "MGET a b", "SET a 1 XX", "CONFIG GET save", "CLIENT GETNAME"))
	require.Contains(t, w.one("HELLO 2"), "*14 server redis")
	require.Equal(t, "$-1", w.one("GET a"))
}

func TestRedisCLICounts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, port, err := net.SplitHostPort(b.addr)
	require.NoError(t, err)
	run := func(input string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-p", port}, args...)...)
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	require.Equal(t, "1\n", run("", "INCRBY", "counter:page_views", "1"))
	require.Equal(t, "OK\n", run("", "SET", "counter:page_views", "15847293"))
	require.Equal(t, "15847294\n15847295\n15847295\n", run("INCR counter:page_views\nINCR counter:page_views\nGET \"counter:page_views\"\n"))
	require.Contains(t, run("", "--no-raw", "GET", "none"), "(nil)")
	require.Contains(t, run("", "-3", "--no-raw", "CONFIG", "GET", "save"), `1# "save" => ""`)
	require.Contains(t, run(strings.Repeat(encode("INCR", "piped"), 2000), "--pipe"), "errors: 0, replies: 2000")
	require.Equal(t, "2000\n", run("", "GET", "piped"))
}

func TestRedisBenchmarkRuns(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, port, err := net.SplitHostPort(b.addr)
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), "redis-benchmark", "-p", port, "-P", "16", "-c", "10", "-n", "3200", "--csv",
		"INCRBY", "hot", "1").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "3200", b.dial(t).one("GET hot"))
}

func TestAtShutdownWhatHasArrivedIsAnswered(t *testing.T) {
	t.Parallel()
	inside, finish := make(chan struct{}), make(chan struct{})
	b := serve(t, blocking(inside, finish), resp.Options{})
	busy, idle := b.dial(t), b.dial(t)
	require.Equal(t, "+PONG", idle.one("PING"))
	busy.write(encodeAll("INCR a", "PING"))
	<-inside
	stopped := make(chan error, 1)
	go func() { stopped <- b.stop() }()
	require.Empty(t, idle.ended())
	close(finish)
	require.Equal(t, []string{":1", "+PONG"}, busy.ended())
	require.NoError(t, <-stopped)
	_, err := net.Dial("tcp", b.addr)
	require.Error(t, err)
}

func TestShutdownAbortsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	inside := make(chan struct{})
	b := serve(t, blocking(inside, nil), resp.Options{}, resp.WithLimits(resp.Limits{Grace: 50 * time.Millisecond}))
	w := b.dial(t)
	w.write(encodeAll("INCR a"))
	<-inside
	require.ErrorIs(t, b.stop(), context.DeadlineExceeded)
	require.LessOrEqual(t, len(w.ended()), 1, "what is aborted may just have been answered")
}

func TestTLSConnectionsCountToo(t *testing.T) {
	t.Parallel()
	files := localtest.NewCertificates(t)
	pair, err := tls.LoadX509KeyPair(files.ServerCert, files.ServerKey)
	require.NoError(t, err)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := resp.New(always(ok), resp.Options{})
	stop := localtest.Run(t, func(ctx context.Context) error {
		return server.Serve(ctx, listener, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
	})
	defer stop()
	authority, err := os.ReadFile(files.CA)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(authority))
	b := &bundle{addr: listener.Addr().String()}
	c := b.client(t, func(o *redis.Options) {
		o.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	})
	require.EqualValues(t, 1, c.Incr(t.Context(), "a").Val())
	w := b.dial(t)
	w.write(encode("PING"))
	replies := w.ended()
	require.NotContains(t, replies, "+PONG", "a client without TLS gets no answer")
}
