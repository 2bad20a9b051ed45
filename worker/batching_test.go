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
	require.Equal(t, 200, b.rows())
	for range 100 {
		b.kept(200, fast, 10)
	}
	require.Equal(t, 200, b.rows())
	require.Equal(t, 1, newTestBatching(1).rows())
	require.Equal(t, 1, newTestBatching(3).rows())
}

func TestBatchesGrowWhilePostgresIsSlowUpToTheLargest(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for _, want := range []int{400, 800, 1000, 1000} {
		b.kept(b.rows(), slow, 1)
		require.Equal(t, want, b.rows())
	}
	b.kept(1000, fair, 1)
	require.Equal(t, 1000, b.rows(), "neither fast nor slow changes nothing")
}

func TestBatchesGrowWithTheBacklogThoughPostgresIsFast(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	b.kept(200, fast, 201)
	require.Equal(t, 400, b.rows())
	b.kept(400, fast, 400)
	require.Equal(t, 350, b.rows(), "a backlog of one batch is none")
}

func TestBatchesShrinkStepByStepWhenPostgresIsFastAgain(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for range 3 {
		b.kept(b.rows(), slow, 1)
	}
	require.Equal(t, 1000, b.rows())
	before := b.rows()
	for range 100 {
		b.kept(b.rows(), fast, 1)
		require.LessOrEqual(t, b.rows(), before)
		require.GreaterOrEqual(t, b.rows(), before-before/8, "by an eighth at most")
		before = b.rows()
	}
	require.Equal(t, 200, b.rows())
}

func TestStatementTimeoutHalvesBatchesAndTheyGrowSlowlyAgain(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for range 3 {
		b.kept(b.rows(), slow, 1)
	}
	b.missed(1000)
	require.Equal(t, 500, b.rows())
	b.missed(500)
	require.Equal(t, 250, b.rows())
	b.kept(100, slow, 1)
	require.Equal(t, 250, b.rows(), "a smaller statement proves nothing")
	b.kept(250, slow, 1)
	require.Equal(t, 250+250/8+1, b.rows())
	for range 20 {
		b.kept(b.rows(), slow, 1)
	}
	require.Equal(t, 1000, b.rows(), "never more than the largest")
	for range 20 {
		b.missed(b.rows())
	}
	require.Equal(t, 1, b.rows(), "never less than one row")
}

func TestPauseIsWholeWhileItCoalescesOrPostgresIsSlow(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	require.Equal(t, time.Second, b.pause(), "as long as nothing is known")
	b.epoch(fast, 1)
	require.Equal(t, shortestPause, b.pause(), "one write a row: nothing is gained by waiting")
	b.kept(10, slow, 1)
	require.Equal(t, time.Second, b.pause())
	b.kept(10, fast, 1)
	require.Equal(t, shortestPause, b.pause())
	b.missed(10)
	require.Equal(t, time.Second, b.pause())
	b.kept(10, fast, 1)
	for range 20 {
		b.epoch(fast, 3)
	}
	require.Equal(t, time.Second, b.pause(), "three writes a row: a pause saves two of three")
}

func TestPauseGrowsWithWhatAnEpochTakes(t *testing.T) {
	t.Parallel()
	b := newTestBatching(1000)
	for range 50 {
		b.epoch(fair, 1)
	}
	require.InDelta(t, pauseShare*fair, b.pause(), float64(10*time.Millisecond))
	for range 50 {
		b.epoch(time.Minute, 1)
	}
	require.Equal(t, time.Second, b.pause(), "the flush interval at most")
	for range 50 {
		b.epoch(0, 1)
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
		require.Equal(t, rows, b.rows())
		require.Equal(t, pause, b.pause())
	}
	shown(200, time.Second)
	b.epoch(fast, 1)
	shown(200, shortestPause)
	b.kept(200, slow, 1)
	shown(400, time.Second)
	b.missed(400)
	shown(200, time.Second)
}
