package load_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/bench/load"
)

// slower counts the latencies longer than d.
func slower(r load.OpenResult, d time.Duration) int64 {
	var n int64
	for _, bar := range r.Histogram.Distribution() {
		if bar.From > d.Microseconds() {
			n += bar.Count
		}
	}
	return n
}

func TestOpenKeepsItsRate(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r, err := load.Open(t.Context(), load.OpenSpec{
		Rate: 1000,
		URL:  s.URL, Space: 50, Connections: 20, Duration: time.Second,
	})
	require.NoError(t, err)
	require.Zero(t, r.Failed)
	require.InDelta(t, 1000, r.Sent, 150, "the standard deviation of the Poisson process is 32")
	sum, counts := s.requests(incrementPath)
	require.EqualValues(t, r.Sent, sum)
	require.Len(t, counts, 50, "every key is drawn")
	require.Equal(t, r.Sent, r.Histogram.TotalCount())
	require.LessOrEqual(t, r.P50, r.P99)
	require.LessOrEqual(t, r.P99, r.Max)
	require.Positive(t, r.P50)
}

// During the stall 200 requests are due, but only 20 are in flight, since there are 20 connections.
func TestOpenChargesAStalledServerForAllDueRequests(t *testing.T) {
	t.Parallel()
	const stall = 200 * time.Millisecond
	began := time.Now()
	from, until := began.Add(300*time.Millisecond), began.Add(300*time.Millisecond+stall)
	s := newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		if now := time.Now(); now.After(from) && now.Before(until) {
			time.Sleep(time.Until(until))
		}
		_, _ = w.Write([]byte("{}"))
	})
	r, err := load.Open(t.Context(), load.OpenSpec{
		Rate: 1000,
		URL:  s.URL, Space: 1, Connections: 20, Duration: time.Second,
	})
	require.NoError(t, err)
	require.Zero(t, r.Failed)
	require.GreaterOrEqual(t, r.Max, stall-20*time.Millisecond)
	require.GreaterOrEqual(t, r.P99, stall*8/10)
	require.GreaterOrEqual(t, slower(r, 20*time.Millisecond), int64(130))
}

func TestOpenCountsFailedRequests(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	s := newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) % 10 {
		case 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 7:
			panic(http.ErrAbortHandler) // closes the connection
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	r, err := load.Open(t.Context(), load.OpenSpec{
		Rate: 1000,
		URL:  s.URL, Space: 1, Connections: 5, Duration: 300 * time.Millisecond,
	})
	require.NoError(t, err)
	require.Equal(t, n.Load(), r.Sent)
	require.InDelta(t, float64(r.Sent)/5, r.Failed, 2)
}

func TestOpenEndsWhenItsContextIsDone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	s := newTarget(t, func(http.ResponseWriter, *http.Request) {
		cancel()
		<-ended // do not answer before Open has returned
	})
	t.Cleanup(func() { close(ended) }) // runs before the server is closed
	began := time.Now()
	_, err := load.Open(ctx, load.OpenSpec{
		Rate: 100,
		URL:  s.URL, Space: 1, Connections: 5, Duration: 30 * time.Second,
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestOpenRequiresARateAndADuration(t *testing.T) {
	t.Parallel()
	for _, spec := range []load.OpenSpec{{Duration: time.Second}, {Rate: 1}} {
		spec.URL, spec.Space, spec.Connections = "http://127.0.0.1:1", 1, 1
		_, err := load.Open(t.Context(), spec)
		require.ErrorContains(t, err, "must be more than 0")
	}
}
