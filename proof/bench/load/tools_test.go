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

func TestWRKCountsWhatTheServerSaw(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Uniform, Space: 10})
	require.Zero(t, r.Failed)
	sum, counts := s.seen(incrementPath)
	require.InDelta(t, r.Requests, sum, 20, "one that is under way for each connection")
	require.InDelta(t, float64(r.Requests)/r.Seconds, r.PerSecond, 0.01)
	require.Len(t, counts, 10)
	require.Less(t, counts[0], 2*counts[9])
	all, _ := s.seen("")
	require.InDelta(t, all, sum, 1, "nothing else was asked for, but wrk's first look")
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
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Hot, Prefix: "round-2:"})
	sum, counts := s.seen("POST /v1/counters/round-2:000000000000/increment")
	require.Len(t, counts, 1)
	require.InDelta(t, r.Requests, sum, 20)
}

func TestWRKSendsBatches(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Uniform, Batch: 100})
	require.Zero(t, r.Failed)
	sum, _ := s.seen("POST /v1/batch")
	require.InDelta(t, r.Requests, sum, 20)
}

func TestWRKReads(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r := wrk(t, load.HTTPSpec{URL: s.URL, Keys: load.Uniform, Space: 10, Form: load.FormGet})
	require.Zero(t, r.Failed)
	sum, counts := s.seen("GET /v1/counters/counter:000000")
	require.InDelta(t, r.Requests, sum, 20)
	require.Len(t, counts, 10)
}

func TestWRKCountsWhatFailed(t *testing.T) {
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

func TestWRKFailsWhereNobodyListens(t *testing.T) {
	t.Parallel()
	_, err := load.WRK(t.Context(), load.HTTPSpec{URL: "http://127.0.0.1:1", Keys: load.Hot, Duration: time.Second})
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

	o, err := load.Open(t.Context(), load.OpenSpec{Rate: 200, HTTPSpec: load.HTTPSpec{
		URL: w.URL, Keys: load.Hot, Form: load.FormWebdis, Connections: 5, Duration: 300 * time.Millisecond,
	}})
	require.NoError(t, err)
	require.Zero(t, o.Failed)
	require.Equal(t, value+o.Sent, client.IncrBy(t.Context(), "counter:000000000000", 0).Val())
}
