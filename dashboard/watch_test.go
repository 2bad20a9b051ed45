package dashboard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/sample"
)

// hearing is a watch that has taken a sample each second, all fine, until second 0.
type hearing struct {
	watch watch
	start time.Time
	last  int64
}

func newHearing(t *testing.T) *hearing {
	t.Helper()
	h := &hearing{start: time.Now()}
	require.False(t, h.hears(0, 1_000_000, ""))
	return h
}

// hears takes a sample in the given second, at a time by Redis's clock.
func (h *hearing) hears(second int, at int64, refusal string) bool {
	deaf := h.watch.hears(sample.Snapshot{Sample: sample.Sample{At: at}, Refusal: refusal}, h.last,
		h.start.Add(time.Duration(second)*time.Second))
	h.last = at
	return deaf
}

func TestNobodyIsTakenForGoneUntilItCouldSayThatItRuns(t *testing.T) {
	t.Parallel()
	h := newHearing(t)
	require.False(t, h.hears(1, 1_001_000, "MISCONF"), "one beat that is lost makes nobody seem gone")
	require.True(t, h.hears(2, 1_002_000, "MISCONF"))
	require.True(t, h.hears(10, 1_010_000, "MISCONF"))
	require.True(t, h.hears(11, 1_011_000, ""))
	require.True(t, h.hears(15, 1_015_000, ""))
	require.False(t, h.hears(16, 1_016_000, ""), "who has not said so by then does not run")

	h.watch.lose(h.start.Add(20 * time.Second))
	require.False(t, h.hears(21, 1_021_000, ""), "a sample that fails now and then hides nothing")
	h.watch.lose(h.start.Add(22 * time.Second))
	h.watch.lose(h.start.Add(24 * time.Second))
	require.True(t, h.hears(25, 1_025_000, ""), "Redis did not answer")
}

func TestNobodyIsTakenForGoneSinceTheClockJumped(t *testing.T) {
	t.Parallel()
	for _, at := range []int64{1_061_000, 941_000} {
		h := newHearing(t)
		require.True(t, h.hears(1, at, ""))
		require.True(t, h.hears(6, at+5000, ""))
		require.False(t, h.hears(7, at+6000, ""))
		require.False(t, h.hears(9, at+6000, ""), "a sample may take its time")
	}
}
