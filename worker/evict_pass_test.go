package worker

import (
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// With more entries than a pass can go through in an interval, each place that a worker has for tasks would be taken by one.
func TestAWorkerMakesOnePassOverAllEntriesAtATime(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	c := cache.New(client, cache.Options{Shards: 1, CleanTTL: time.Millisecond})
	e := &evictor{
		cache: c, logger: slog.New(slog.DiscardHandler), cleanTTL: time.Millisecond,
		metrics: newMetrics(prometheus.NewRegistry(), func() bool { return true }),
	}
	w := c.NewWriter(func() bool { return true })
	t.Cleanup(w.Close)
	o := w.Do(t.Context(), []cache.Write{{Operation: counter.Operation{Kind: counter.Set, Key: "a", Amount: 1}, Blind: true}})[0]
	require.NoError(t, o.Err)
	epoch, err := c.Seal(t.Context(), 0, cache.Taking{Owner: "test", Lease: time.Minute})
	require.NoError(t, err)
	_, _, err = c.Commit(t.Context(), &epoch)
	require.NoError(t, err)
	left := func() int64 {
		require.NoError(t, e.idle(t.Context()))
		return client.Exists(t.Context(), "{aw:00}:c:a").Val()
	}

	e.passing.Store(true)
	require.Equal(t, int64(1), left(), "another pass is under way")
	e.passing.Store(false)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) { return left() == 0, "not evicted" })
}
