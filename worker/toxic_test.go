package worker_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// poison puts a proxy in front of the server of rawURL, and returns the proxy's URL.
func poison(t *testing.T, rawURL string) (*toxiproxy.Proxy, string) {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, "proxy", "127.0.0.1:0", u.Host)
	require.NoError(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	u.Host = proxy.Listen
	return proxy, u.String()
}

// toxic is one kind of network failure.
type toxic struct {
	name, json string
	requests   int // of each caller; fewer if each lasts until its time-out
}

var toxics = []toxic{
	{"slow", `{"type": "latency", "stream": "downstream", "attributes": {"latency": 20, "jitter": 20}}`, 30},
	{"in pieces", `{"type": "slicer", "stream": "upstream", "attributes": {"average_size": 20, "size_variation": 10, "delay": 10}}`, 30},
	{"reset", `{"type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 5}}`, 30},
	{"cut within the request", `{"type": "limit_data", "stream": "upstream", "attributes": {"bytes": 700}}`, 30},
	{"cut within the answer", `{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": 300}}`, 30},
	{"silent", `{"type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`, 2},
}

func (x toxic) add(t *testing.T, proxy *toxiproxy.Proxy) {
	t.Helper()
	_, err := proxy.Toxics.AddToxicJson(strings.NewReader(x.json))
	require.NoError(t, err)
}

// Whatever the network to Redis does: acknowledged writes are applied, and writes reported as not applied are not.
func TestNetworkToRedisMakesNoAnswerWrong(t *testing.T) {
	t.Parallel()
	for _, x := range toxics {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			server := localtest.OwnRedis(t, local.RedisOptions{})
			postgres := localtest.PostgresURL(t, migrate)
			b := setupOn(t, server.URL(), postgres, nil)
			b.do(t, many(4)...) // warm
			proxy, through := poison(t, server.URL())
			poisoned := setupOn(t, through, postgres, nil)
			poisoned.do(t, many(4)...)
			acknowledged, unknown := []int64{2, 2, 2, 2}, []int64{0, 0, 0, 0}

			x.add(t, proxy)
			var mu sync.Mutex
			var callers sync.WaitGroup
			for range 4 {
				callers.Go(func() {
					for range x.requests {
						for i, r := range poisoned.service.Do(context.Background(), many(4), noOptions) {
							mu.Lock()
							switch {
							case r.Err == nil:
								acknowledged[i]++
							case counter.CodeOf(r.Err) == counter.CodeOutcomeUnknown:
								unknown[i]++
							}
							mu.Unlock()
						}
					}
				})
			}
			callers.Wait()
			proxy.Toxics.ResetToxics(context.Background())

			t.Logf("acknowledged %v, unknown %v", acknowledged, unknown)
			b.drainAll(t)
			for i := range 4 {
				key := counter.Key(fmt.Sprintf("k%d", i))
				got := b.do(t, get(key))[0].Counter
				require.GreaterOrEqual(t, got.Value, acknowledged[i], "%s lost writes", key)
				require.LessOrEqual(t, got.Value, acknowledged[i]+unknown[i], "%s counts some twice", key)
				b.requireRow(t, counter.Row{Key: key, Value: got.Value, Version: got.Version})
			}
		})
	}
}

// Whatever the network to Postgres does: no write is lost, and every row is right in the end.
func TestNetworkToPostgresLosesNoWrite(t *testing.T) {
	t.Parallel()
	for _, x := range toxics {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			proxy, through := poison(t, localtest.PostgresURL(t, migrate))
			b := setupOn(t, localtest.RedisURL(t), through, map[string]string{"AFTERWRITE_SHARDS": "2"})
			b.do(t, many(300)...)

			x.add(t, proxy)
			for range 3 {
				b.service.Do(t.Context(), many(300), noOptions) // the write is accepted, warm or blind
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				rows, left, err := b.worker.DrainAll(ctx, "test")
				cancel()
				t.Log(rows, left, err)
			}
			proxy.Toxics.ResetToxics(context.Background())

			localtest.Eventually(t, 30*time.Second, func() (bool, string) {
				_, left, err := b.worker.DrainAll(t.Context(), "test")
				return left == 0 && err == nil, fmt.Sprint(left, " left: ", err)
			})
			require.Zero(t, b.backlog(t).Dead)
			for _, i := range []int{0, 150, 299} {
				b.requireRow(t, counter.Row{Key: counter.Key(fmt.Sprintf("k%d", i)), Value: 4, Version: 4})
			}
		})
	}
}
