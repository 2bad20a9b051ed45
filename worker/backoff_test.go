package worker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

var aMoment = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestFewFailedTasksWaitOneToThreeSeconds(t *testing.T) {
	t.Parallel()
	var p outageBackoff
	for range 10 {
		delay := p.take(aMoment)
		require.GreaterOrEqual(t, delay, outageDelay)
		require.LessOrEqual(t, delay, 3*outageDelay)
	}
	require.False(t, p.full(aMoment))
}

func TestRetriesAfterAnOutageHaveABoundedRate(t *testing.T) {
	t.Parallel()
	var p outageBackoff
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
	// After the jitter of the first seconds, no gap has more than one retry.
	perSecond := make(map[time.Duration]int)
	for _, d := range due {
		perSecond[d/time.Second]++
	}
	for second := time.Duration(4); second < 29; second++ {
		require.InDelta(t, time.Second/outageGap, perSecond[second], 1, "in second %d", second)
	}
	// With no free moment left, a task still waits no longer, and does not delay the others.
	next := p.next
	for range 1000 {
		delay := p.take(aMoment)
		require.GreaterOrEqual(t, delay, maxOutageDelay/2)
		require.LessOrEqual(t, delay, maxOutageDelay)
	}
	require.Equal(t, next, p.next)
	require.False(t, p.full(aMoment.Add(time.Minute)), "the moments become free again")
}

func entries(keys ...counter.Key) []cache.Entry {
	out := make([]cache.Entry, len(keys))
	for i, key := range keys {
		out[i].Key = key
	}
	return out
}

// delayOf defers key and returns for how long.
func (d *deferrals) delayOf(t *testing.T, key counter.Key, now time.Time) time.Duration {
	t.Helper()
	groups := d.next(entries(key), now, false)
	require.Len(t, groups, 1)
	for delay, keys := range groups {
		require.Equal(t, []counter.Key{key}, keys)
		return delay
	}
	return 0
}

func TestDeferralsDoubleUpToFiveSeconds(t *testing.T) {
	t.Parallel()
	d, now := newDeferrals(), aMoment
	for _, ms := range []int64{250, 500, 1000, 2000, 4000, 5000, 5000} {
		delay := d.delayOf(t, "a", now)
		require.Equal(t, ms, delay.Milliseconds())
		now = now.Add(delay)
	}
	require.Equal(t, shortestDeferral, d.delayOf(t, "b", now), "each key has its own delay")
}

func TestDeferralsOfOneBatchAreGroupedByTheirDelay(t *testing.T) {
	t.Parallel()
	d := newDeferrals()
	d.next(entries("a", "b"), aMoment, false)
	d.next(entries("a"), aMoment, false)
	require.Equal(t, map[time.Duration][]counter.Key{
		250 * time.Millisecond: {"c"}, 500 * time.Millisecond: {"b"}, time.Second: {"a"},
	}, d.next(entries("a", "b", "c"), aMoment, false))
}

func TestDeferralsRestartAfterASuccessOrAPause(t *testing.T) {
	t.Parallel()
	d := newDeferrals()
	d.next(entries("taken", "old", "recent"), aMoment, false)
	d.forget(entries("taken", "unknown"))
	require.Equal(t, shortestDeferral, d.delayOf(t, "taken", aMoment))
	require.Equal(t, 2*shortestDeferral, d.delayOf(t, "recent", aMoment.Add(deferralMemory-1)))
	require.Equal(t, shortestDeferral, d.delayOf(t, "old", aMoment.Add(deferralMemory)))
}

func TestSlowEntriesAreRememberedUntilTheyAreFlushed(t *testing.T) {
	t.Parallel()
	d := newDeferrals()
	all := entries("a", "b", "c", "d")
	others, slow := d.split(all)
	require.Equal(t, all, others)
	require.Empty(t, slow)
	d.next(entries("b", "d"), aMoment, true)
	d.next(entries("c"), aMoment, false)
	others, slow = d.split(all)
	require.Equal(t, entries("a", "c"), others)
	require.Equal(t, entries("b", "d"), slow)
	d.forget(entries("b"))
	_, slow = d.split(all)
	require.Equal(t, entries("d"), slow)
}

func TestDeferralsAreBounded(t *testing.T) {
	t.Parallel()
	d := newDeferrals()
	put := func(name string, n int, now time.Time) {
		for i := range n {
			d.next(entries(counter.Key(fmt.Sprintf("%s%d", name, i))), now, false)
			require.LessOrEqual(t, len(d.keys), maxDeferrals)
		}
	}
	put("old", maxDeferrals/2, aMoment)
	later := aMoment.Add(deferralMemory)
	put("new", maxDeferrals/2, later)
	require.Len(t, d.keys, maxDeferrals)

	put("another", 1, later)
	require.Len(t, d.keys, maxDeferrals/2+1, "old entries were dropped")
	require.Equal(t, 2*shortestDeferral, d.delayOf(t, "new0", later), "newer entries were kept")

	put("flood", maxDeferrals, later)
	require.LessOrEqual(t, len(d.keys), maxDeferrals)
	require.NotEmpty(t, d.keys)
}
