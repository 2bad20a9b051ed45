//go:build bench

package load_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/proof/bench/load"
)

func wrk(t *testing.T, spec load.HTTPSpec) load.HTTPResult {
	t.Helper()
	spec.Connections, spec.Duration = 20, time.Second
	r, err := load.WRK(t.Context(), spec)
	require.NoError(t, err)
	require.InDelta(t, 1, r.Seconds, 0.5)
	require.Positive(t, r.P50)
	require.LessOrEqual(t, r.P50, r.P99)
	return r
}

func TestWRKCountsTheRequestsOfTheServer(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Uniform, Space: 10})
	require.Zero(t, r.Failed)
	sum, counts := s.requests(incrementPath)
	require.InDelta(t, r.Requests, sum, 20, "at most one request in flight for each connection")
	require.InDelta(t, float64(r.Requests)/r.Seconds, r.PerSecond, 0.01)
	require.Len(t, counts, 10)
	require.Less(t, counts[0], 2*counts[9])
	all, _ := s.requests("")
	require.InDelta(t, all, sum, 1, "wrk sends one more request to check the connection")
}

func TestWRKDrawsByZipf(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Zipf, Space: 1000})
	requireZipf(t, s, int(r.Requests))
}

func TestWRKHasOneHotKey(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Hot})
	sum, counts := s.requests("POST /v1/counters/counter:000000000000/increment")
	require.Len(t, counts, 1)
	require.InDelta(t, r.Requests, sum, 20)
}

func TestWRKSendsBatches(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Uniform, Space: 100, Batch: 100})
	require.Zero(t, r.Failed)
	sum, _ := s.requests("POST /v1/batch")
	require.InDelta(t, r.Requests, sum, 20)
}

func TestWRKSendsReads(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Uniform, Space: 10, Form: load.FormGet})
	require.Zero(t, r.Failed)
	sum, counts := s.requests("GET /v1/counters/counter:000000")
	require.InDelta(t, r.Requests, sum, 20)
	require.Len(t, counts, 10)
}

func TestWRKSendsTheAPIKey(t *testing.T) {
	t.Parallel()
	for _, form := range []load.Form{load.FormIncrement, load.FormGet} {
		s := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer aw_key" || r.Host == "" {
				w.WriteHeader(http.StatusUnauthorized)
			}
		})
		r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Hot, Form: form, APIKey: "aw_key"})
		require.Zero(t, r.Failed)
		require.NotZero(t, wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Hot, Form: form}).Failed)
	}
}

func TestWRKCountsFailedRequests(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	s := newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%10 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Hot})
	require.InDelta(t, float64(r.Requests)/10, r.Failed, 25)
	require.InDelta(t, float64(r.Requests-r.Failed)/r.Seconds, r.PerSecond, 0.01)
}

func TestWRKFailsWithoutAServer(t *testing.T) {
	t.Parallel()
	_, err := load.WRK(t.Context(), load.HTTPSpec{URL: "http://127.0.0.1:1", Keys: load.Hot, Connections: 2, Duration: time.Second})
	require.ErrorContains(t, err, "unable to connect")
}

func TestWebdisCountsInRedis(t *testing.T) {
	t.Parallel()
	url := localtest.RedisURL(t)
	w, err := load.Webdis(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Stop()) }()
	r := wrk(t, load.HTTPSpec{URL: w.URL, Keys: load.Hot, Form: load.FormWebdis})
	require.Zero(t, r.Failed)

	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	client := redis.NewClient(options)
	defer client.Close()
	value, err := client.Get(t.Context(), "counter:000000000000").Int64()
	require.NoError(t, err)
	require.InDelta(t, r.Requests, value, 20)
}

// requireZipf checks the distribution of 1,000 keys: the first gets 1/5.57 of all requests, the second 1/2^1.1 as many as the first.
func requireZipf(t *testing.T, s *target, sent int) {
	t.Helper()
	sum, counts := s.requests(incrementPath)
	require.InDelta(t, sent, sum, 50)
	require.InDelta(t, 1/5.57, float64(counts[0])/float64(sum), 0.03)
	require.InDelta(t, 1/5.57/2.14, float64(counts[1])/float64(sum), 0.02)
	require.Greater(t, len(counts), 200, "the tail is long")
}
