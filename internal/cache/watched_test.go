package cache_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// A replica refuses a write, so the client makes new connections. Meanwhile other calls use the old ones.
func TestRefusedCallFailsNoOtherCall(t *testing.T) {
	t.Parallel()
	files := localtest.NewCertificates(t)
	password, port := secure(t, files)
	plain := localtest.OwnRedis(t, local.RedisOptions{})
	for name, to := range map[string]struct {
		url   string
		files cache.TLSFiles
	}{
		"plain": {url: plain.URL()},
		"TLS":   {fmt.Sprintf("rediss://:%s@127.0.0.1:%s/0", password, port), allFiles(files)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := cache.ConnectTLS(to.url, to.files, 8)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, client.Close()) })
			require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())
			require.NoError(t, client.ReplicaOf(t.Context(), "127.0.0.1", "1").Err())

			const refusals = 20
			var refused atomic.Int64
			readers, ctx := errgroup.WithContext(t.Context())
			for range 4 {
				readers.Go(func() error {
					for refused.Load() < refusals {
						if err := readThrice(ctx, client); err != nil {
							return err
						}
					}
					return nil
				})
			}
			for range refusals {
				require.ErrorContains(t, client.Set(t.Context(), "k", "w", 0).Err(), "READONLY")
				refused.Add(1)
			}
			require.NoError(t, readers.Wait())
		})
	}
}

// readThrice reads with a pipeline, whose answers may arrive in parts.
func readThrice(ctx context.Context, client redis.UniversalClient) error {
	pipe := client.Pipeline()
	for range 3 {
		pipe.Get(ctx, "k")
	}
	_, err := pipe.Exec(ctx)
	return err
}

// After a failover the address leads to another server, but the connections still lead to the former master, which is a replica now.
func TestRefusedCallGoesToWhereTheAddressLeadsNow(t *testing.T) {
	t.Parallel()
	files := localtest.NewCertificates(t)
	for scheme, server := range map[string]func() (addr string, direct redis.UniversalClient){
		"redis": func() (string, redis.UniversalClient) {
			own := localtest.OwnRedis(t, local.RedisOptions{Open: true})
			direct, err := cache.Connect(own.URL(), 1)
			require.NoError(t, err)
			return own.Addr(), direct
		},
		"rediss": func() (string, redis.UniversalClient) {
			password, port := secure(t, files)
			direct := connectTLS(t, fmt.Sprintf("rediss://:%s@127.0.0.1:%s/0", password, port), allFiles(files))
			require.NoError(t, direct.ConfigSet(t.Context(), "requirepass", "").Err())
			return "127.0.0.1:" + port, direct
		},
	} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			first, former := server()
			second, master := server()
			var to atomic.Value
			to.Store(first)
			own := cache.TLSFiles{}
			if scheme == "rediss" {
				own = allFiles(files)
			}
			client, err := cache.ConnectTLS(scheme+"://"+forward(t, &to)+"/0", own, pooled)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, client.Close()) })
			useAll(t, client)

			to.Store(second)
			require.NoError(t, former.ReplicaOf(t.Context(), "127.0.0.1", "1").Err())
			for range 3 {
				require.NoError(t, client.Incr(t.Context(), "k").Err())
			}
			require.Equal(t, "3", master.Get(t.Context(), "k").Val())
			require.Regexp(t, `cmdstat_incr:calls=0,.*rejected_calls=1,`, former.Info(t.Context(), "commandstats").Val())
		})
	}
}

// A restart of Redis, its setting timeout, or a load balancer closes connections that are idle.
func TestIdleTLSConnectionThatTheServerHasClosedIsNotUsed(t *testing.T) {
	t.Parallel()
	client, other := pooledTLS(t)
	require.NoError(t, other.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
	for range pooled {
		require.NoError(t, client.Incr(t.Context(), "k").Err())
	}
}

// A server may send bytes of TLS that belong to no answer, as session tickets. They must not cost a connection at each call.
func TestIdleTLSConnectionIsUsedAgain(t *testing.T) {
	t.Parallel()
	client, other := pooledTLS(t)
	received := func() string {
		return regexp.MustCompile(`total_connections_received:\d+`).FindString(other.Info(t.Context(), "stats").Val())
	}
	before := received()
	require.NotEmpty(t, before)
	for range 20 {
		require.NoError(t, client.Incr(t.Context(), "k").Err())
	}
	useAll(t, client)
	require.Equal(t, before, received())
}

const pooled = 8

// pooledTLS returns a client that has as many idle connections with TLS, and another client of the same server.
func pooledTLS(t *testing.T) (client, other redis.UniversalClient) {
	t.Helper()
	files := localtest.NewCertificates(t)
	password, port := secure(t, files)
	address := fmt.Sprintf("rediss://:%s@127.0.0.1:%s/0", password, port)
	client, err := cache.ConnectTLS(address, allFiles(files), pooled)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	useAll(t, client)
	require.EqualValues(t, pooled, client.PoolStats().IdleConns)
	return client, connectTLS(t, address, allFiles(files))
}

// useAll uses all connections of the pool at once.
func useAll(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	var readers errgroup.Group
	for range pooled {
		readers.Go(func() error {
			return client.BLPop(t.Context(), time.Second, "nothing").Err()
		})
	}
	require.ErrorIs(t, readers.Wait(), redis.Nil)
}

// forward returns an address that leads to the address in to.
func forward(t *testing.T, to *atomic.Value) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to.Load().(string))
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
				}()
			}
		}
	}()
	return listener.Addr().String()
}
