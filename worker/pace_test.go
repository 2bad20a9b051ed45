package worker

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var aMoment = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestAFewFailedTasksWaitOneToThreeSeconds(t *testing.T) {
	t.Parallel()
	var p pace
	for range 10 {
		delay := p.take(aMoment)
		require.GreaterOrEqual(t, delay, outageDelay)
		require.LessOrEqual(t, delay, 3*outageDelay)
	}
	require.False(t, p.full(aMoment))
}

func TestRetriesOfAnOutageComeAtABoundedRate(t *testing.T) {
	t.Parallel()
	var p pace
	var due []time.Duration // since aMoment
	for now := aMoment; ; now = now.Add(time.Millisecond) {
		if p.full(now) {
			break
		}
		due = append(due, now.Add(p.take(now)).Sub(aMoment))
	}
	slices.Sort(due)
	require.InDelta(t, maxOutageDelay/outageGap, len(due), 10)
	require.LessOrEqual(t, due[len(due)-1], maxOutageDelay+time.Second)
	// Past the jitter of the first seconds, there is never more than one in a gap.
	perSecond := make(map[time.Duration]int)
	for _, d := range due {
		perSecond[d/time.Second]++
	}
	for second := time.Duration(4); second < 29; second++ {
		require.InDelta(t, time.Second/outageGap, perSecond[second], 1, "in second %d", second)
	}
	// What must be kept all the same waits for no longer than that, and does not push the others back.
	next := p.next
	for range 1000 {
		delay := p.take(aMoment)
		require.GreaterOrEqual(t, delay, maxOutageDelay/2)
		require.LessOrEqual(t, delay, maxOutageDelay)
	}
	require.Equal(t, next, p.next)
	require.False(t, p.full(aMoment.Add(time.Minute)), "it is over some time")
}
