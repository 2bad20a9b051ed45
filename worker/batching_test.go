package worker

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

const (
	fast = time.Millisecond
	fair = 20 * time.Millisecond
	slow = 60 * time.Millisecond
)

func newTestBatching(most int) *batching {
	return newBatching(most, time.Second, prometheus.NewRegistry())
}

func TestBatchesAreSmallAtFirstAndWhilePostgresIsFast(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	require.Equal(t, 200, b.rows(0))
	for range 100 {
		b.kept(0, 200, fast, 10)
	}
	require.Equal(t, 200, b.rows(0))
	require.Equal(t, 1, newTestBatching(1).rows(0))
	require.Equal(t, 1, newTestBatching(3).rows(0))
}

func TestBatchesGrowWhilePostgresIsSlowUpToTheLargest(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for _, want := range []int{400, 800, 1000, 1000} {
		b.kept(0, b.rows(0), slow, 1)
		require.Equal(t, want, b.rows(0))
	}
	b.kept(0, 1000, fair, 1)
	require.Equal(t, 1000, b.rows(0), "a statement neither fast nor slow changes nothing")
}

func TestBatchesGrowWithTheBacklogEvenIfPostgresIsFast(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	b.kept(0, 200, fast, 201)
	require.Equal(t, 400, b.rows(0))
	b.kept(0, 400, fast, 400)
	require.Equal(t, 350, b.rows(0), "one batch is no backlog")
}

func TestBatchesShrinkStepByStepWhenPostgresIsFastAgain(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for range 3 {
		b.kept(0, b.rows(0), slow, 1)
	}
	require.Equal(t, 1000, b.rows(0))
	before := b.rows(0)
	for range 100 {
		b.kept(0, b.rows(0), fast, 1)
		require.LessOrEqual(t, b.rows(0), before)
		require.GreaterOrEqual(t, b.rows(0), before-before/8, "by an eighth at most")
		before = b.rows(0)
	}
	require.Equal(t, 200, b.rows(0))
}

func TestStatementTimeoutHalvesBatchesAndTheyGrowSlowlyAgain(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for range 3 {
		b.kept(0, b.rows(0), slow, 1)
	}
	b.missed(0, 1000)
	require.Equal(t, 500, b.rows(0))
	b.missed(0, 500)
	require.Equal(t, 250, b.rows(0))
	b.kept(0, 250, slow, 1)
	require.Equal(t, 250, b.rows(0), "no growth during the search for the slow row")
	b.epoch(0, slow, 1)
	b.kept(0, 100, slow, 1)
	require.Equal(t, 250, b.rows(0), "a smaller statement proves nothing")
	b.kept(0, 250, slow, 1)
	require.Equal(t, 250+250/8+1, b.rows(0))
	for range 20 {
		b.kept(0, b.rows(0), slow, 1)
	}
	require.Equal(t, 1000, b.rows(0), "never more than the largest")
	for range 20 {
		b.missed(0, b.rows(0))
	}
	require.Equal(t, 1, b.rows(0), "never less than one row")
}

// The slow row is behind others, which succeed each time, in this shard and in others.
func TestSlowRowIsFoundByHalvingDespiteOtherSuccesses(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for want := b.rows(0) / 2; want > 0; want /= 2 {
		for range 20 {
			b.kept(0, b.rows(0), fast, 1)
			b.kept(1, b.rows(1), fast, 1)
			b.epoch(1, fast, 1)
		}
		b.missed(0, b.rows(0))
		require.Equal(t, want, b.rows(0))
		require.Equal(t, 200, b.rows(1), "other shards are unaffected")
	}
	b.kept(0, 1, fast, 1)
	require.Equal(t, 1, b.rows(0))
	b.isolated(0)
	b.kept(0, 1, fast, 1)
	require.Equal(t, 2, b.rows(0))
}

func TestPauseIsLongestWhileItCoalescesOrPostgresIsSlow(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	require.Equal(t, time.Second, b.pause(), "before the first measurement")
	b.epoch(0, fast, 1)
	require.Equal(t, shortestPause, b.pause(), "one write per row: waiting gains nothing")
	b.kept(0, 10, slow, 1)
	require.Equal(t, time.Second, b.pause())
	b.kept(0, 10, fast, 1)
	require.Equal(t, shortestPause, b.pause())
	b.missed(0, 10)
	require.Equal(t, time.Second, b.pause())
	b.kept(0, 10, fast, 1)
	for range 20 {
		b.epoch(0, fast, 3)
	}
	require.Equal(t, time.Second, b.pause(), "three writes per row: a pause saves two of three")
}

func TestPauseGrowsWithTheDurationOfAnEpoch(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for range 50 {
		b.epoch(0, fair, 1)
	}
	require.InDelta(t, pauseShare*fair, b.pause(), float64(10*time.Millisecond))
	for range 50 {
		b.epoch(0, time.Minute, 1)
	}
	require.Equal(t, time.Second, b.pause(), "the flush interval at most")
	for range 50 {
		b.epoch(0, 0, 1)
	}
	require.Equal(t, shortestPause, b.pause())
}

func TestGaugesShowBatchAndPause(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	shown := func(rows int, pause time.Duration) {
		t.Helper()
		require.InDelta(t, rows, testutil.ToFloat64(b.rowsSize), 0)
		require.InDelta(t, pause.Seconds(), testutil.ToFloat64(b.pauses), 0)
		require.Equal(t, rows, b.rows(0))
		require.Equal(t, pause, b.pause())
	}
	shown(200, time.Second)
	b.epoch(0, fast, 1)
	shown(200, shortestPause)
	b.kept(0, 200, slow, 1)
	shown(400, time.Second)
	b.missed(0, 400)
	shown(200, time.Second)
}
