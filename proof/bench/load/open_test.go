package load_test

import (
	"context"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/bench/load"
)

// slower returns how many latencies were longer than d.
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
	r, err := load.Open(t.Context(), load.OpenSpec{Rate: 1000, HTTPSpec: load.HTTPSpec{
		URL: s.URL, Keys: load.Uniform, Space: 50, Connections: 20, Duration: time.Second,
	}})
	require.NoError(t, err)
	require.Zero(t, r.Failed)
	require.InDelta(t, 1000, r.Sent, 150, "a Poisson process: about 32 more or less")
	sum, counts := s.seen(incrementPath)
	require.EqualValues(t, r.Sent, sum)
	require.Len(t, counts, 50, "every key has its turn")
	require.Equal(t, r.Sent, r.Histogram.TotalCount())
	require.LessOrEqual(t, r.P50, r.P99)
	require.LessOrEqual(t, r.P99, r.Max)
	require.Positive(t, r.P50)
}

// A server that stalls is charged for every request that was due meanwhile, not only for those that it had got: there are 20
// connections, and 200 requests are due.
func TestOpenChargesAStalledServerForAllThatWasDue(t *testing.T) {
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
	r, err := load.Open(t.Context(), load.OpenSpec{Rate: 1000, HTTPSpec: load.HTTPSpec{
		URL: s.URL, Keys: load.Hot, Connections: 20, Duration: time.Second,
	}})
	require.NoError(t, err)
	require.Zero(t, r.Failed)
	require.GreaterOrEqual(t, r.Max, stall-20*time.Millisecond)
	require.GreaterOrEqual(t, r.P99, stall*8/10)
	require.GreaterOrEqual(t, slower(r, 20*time.Millisecond), int64(130))
}

func TestOpenCountsWhatFailed(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	s := newTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) % 10 {
		case 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 7:
			panic(http.ErrAbortHandler) // cuts the connection
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	r, err := load.Open(t.Context(), load.OpenSpec{Rate: 1000, HTTPSpec: load.HTTPSpec{
		URL: s.URL, Keys: load.Hot, Connections: 5, Duration: 300 * time.Millisecond,
	}})
	require.NoError(t, err)
	require.Equal(t, n.Load(), r.Sent)
	require.InDelta(t, float64(r.Sent)/5, r.Failed, 2)
}

func TestOpenDrawsByZipf(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r, err := load.Open(t.Context(), load.OpenSpec{Rate: 3000, HTTPSpec: load.HTTPSpec{
		URL: s.URL, Keys: load.Zipf, Space: 1000, Connections: 20, Duration: time.Second,
	}})
	require.NoError(t, err)
	requireZipf(t, s, int(r.Sent))
}

// requireZipf is for 1,000 keys: the first has 1/5.57 of all, the second 1/2^1.1 of that.
func requireZipf(t *testing.T, s *target, sent int) {
	t.Helper()
	sum, counts := s.seen(incrementPath)
	require.InDelta(t, sent, sum, 50)
	require.InDelta(t, 1/5.57, float64(counts[0])/float64(sum), 0.03)
	require.InDelta(t, 1/5.57/2.14, float64(counts[1])/float64(sum), 0.02)
	require.Greater(t, len(counts), 200, "the tail is long")
}

func TestOpenSendsBatches(t *testing.T) {
	t.Parallel()
	var operations, wrong atomic.Int64
	s := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Operations []struct {
				Op  string `json:"op"`
				Key string `json:"key"`
				By  int    `json:"by"`
			} `json:"operations"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			wrong.Add(1)
		}
		for _, o := range body.Operations {
			if o.Op != "increment" || len(o.Key) != 20 || o.By != 1 {
				wrong.Add(1)
			}
		}
		operations.Add(int64(len(body.Operations)))
		_, _ = w.Write([]byte("{}"))
	})
	r, err := load.Open(t.Context(), load.OpenSpec{Rate: 100, HTTPSpec: load.HTTPSpec{
		URL: s.URL, Keys: load.Uniform, Connections: 5, Duration: 300 * time.Millisecond, Batch: 100,
	}})
	require.NoError(t, err)
	require.Zero(t, r.Failed)
	require.Zero(t, wrong.Load())
	require.Equal(t, r.Sent*100, operations.Load())
	sum, _ := s.seen("POST /v1/batch")
	require.EqualValues(t, r.Sent, sum)
}

func TestOpenReads(t *testing.T) {
	t.Parallel()
	s := newTarget(t, nil)
	r, err := load.Open(t.Context(), load.OpenSpec{Rate: 100, HTTPSpec: load.HTTPSpec{
		URL: s.URL, Keys: load.Uniform, Connections: 5, Duration: 300 * time.Millisecond, Form: load.FormGet,
	}})
	require.NoError(t, err)
	require.Zero(t, r.Failed)
	sum, _ := s.seen("GET /v1/counters/counter:")
	require.EqualValues(t, r.Sent, sum)
}

func TestOpenEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	s := newTarget(t, func(http.ResponseWriter, *http.Request) {
		cancel()
		<-ended // no answer before that
	})
	t.Cleanup(func() { close(ended) }) // before the server's own
	began := time.Now()
	_, err := load.Open(ctx, load.OpenSpec{Rate: 100, HTTPSpec: load.HTTPSpec{
		URL: s.URL, Keys: load.Hot, Connections: 5, Duration: 30 * time.Second,
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestSpecsAreChecked(t *testing.T) {
	t.Parallel()
	good := load.HTTPSpec{URL: "http://127.0.0.1:1", Keys: load.Hot, Duration: time.Second}
	for name, change := range map[string]func(*load.OpenSpec){
		"url":         func(s *load.OpenSpec) { s.URL = "127.0.0.1:1" },
		"path":        func(s *load.OpenSpec) { s.URL += "/v1" },
		"keys":        func(s *load.OpenSpec) { s.Keys = "warm" },
		"space":       func(s *load.OpenSpec) { s.Space = 1_000_001 },
		"connections": func(s *load.OpenSpec) { s.Connections = 1 },
		"batch":       func(s *load.OpenSpec) { s.Batch = 1001 },
		"form":        func(s *load.OpenSpec) { s.Form = "post" },
		"read batch":  func(s *load.OpenSpec) { s.Batch, s.Form = 10, load.FormGet },
		"prefix":      func(s *load.OpenSpec) { s.Prefix = "a/b" },
		"duration":    func(s *load.OpenSpec) { s.Duration = 0 },
		"rate":        func(s *load.OpenSpec) { s.Rate = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := load.OpenSpec{HTTPSpec: good, Rate: 1}
			change(&spec)
			_, err := load.Open(t.Context(), spec)
			require.ErrorContains(t, err, "open loop: ")
			require.NotContains(t, err.Error(), "refused", "it was found before it was tried")
		})
	}
}
