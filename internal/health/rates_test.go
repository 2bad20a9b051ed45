package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// beat returns a heartbeat with these counts. at is both the time by Redis's clock and the uptime.
func beat(id string, at, writes, rows int64, lag ...int64) Heartbeat {
	p := Heartbeat{ID: id, At: at, Uptime: at, Counts: Counts{Writes: writes, Rows: rows}}
	if lag != nil {
		p.Counts.LagBounds, p.Counts.Lag = []float64{1, 2, 4}, lag
	}
	return p
}

func add(r *rates, all ...Heartbeat) Snapshot {
	var s Snapshot
	r.add(&s, all)
	return s
}

func TestRatesCoverTheTimeBetweenTwoHeartbeats(t *testing.T) {
	t.Parallel()
	r := newRates()
	require.Zero(t, add(r, beat("a", 1000, 500, 50)).Writes, "what was counted before nobody looked has no rate")
	require.InDelta(t, 100, add(r, beat("a", 3000, 700, 60)).Writes, 0)
	s := add(r, beat("a", 3000, 700, 60))
	require.InDelta(t, 100, s.Writes, 0, "a beat that is late changes nothing")
	require.InDelta(t, 5, s.Rows, 0)
	require.InDelta(t, 0, add(r, beat("a", 4000, 700, 60)).Writes, 0)
}

func TestRatesOfProcessesAddUp(t *testing.T) {
	t.Parallel()
	r := newRates()
	add(r, beat("a", 1000, 0, 0), beat("b", 1100, 0, 0))
	require.InDelta(t, 30, add(r, beat("a", 2000, 10, 0), beat("b", 2100, 20, 0)).Writes, 0)
}

func TestRestartMakesNoNegativeRate(t *testing.T) {
	t.Parallel()
	r := newRates()
	add(r, beat("a", 1000, 1_000_000, 9))
	require.Zero(t, add(r, beat("b", 2000, 10, 0)).Writes, "the process after the restart has an ID of its own")
	require.InDelta(t, 5, add(r, beat("b", 3000, 15, 0)).Writes, 0)
	require.Zero(t, add(r, beat("b", 4000, 3, 0)).Writes, "and even a count that goes back is no rate")
	require.Len(t, r.processes, 1, "who is gone is forgotten")
}

func TestGoneProcessHasNoRate(t *testing.T) {
	t.Parallel()
	r := newRates()
	add(r, beat("a", 1000, 0, 0))
	last := beat("a", 2000, 10, 0)
	require.InDelta(t, 10, add(r, last).Writes, 0)
	last.Age = time.Minute
	require.Zero(t, add(r, last).Writes)
}

func TestOnlyServerErrorsCountAsRejected(t *testing.T) {
	t.Parallel()
	r := newRates()
	before, now := beat("a", 1000, 0, 0), beat("a", 2000, 0, 0)
	now.Counts.Rejected = map[string]int64{"invalid_key": 100, "not_found": 7, "backpressure": 3, "cache_full": 2}
	add(r, before)
	require.InDelta(t, 5, add(r, now).Rejected, 0)
}

func Test503InAnOutageCountsAsRejected(t *testing.T) {
	t.Parallel()
	r := newRates()
	before, now := beat("a", 1000, 0, 0), beat("a", 2000, 0, 0)
	now.Counts.Rejected = map[string]int64{"database_unavailable": 4, "not_durable": 2}
	add(r, before)
	require.InDelta(t, 6, add(r, now).Rejected, 0)
}

func TestClockSetBackDoesNotFreezeRates(t *testing.T) {
	t.Parallel()
	r := newRates()
	add(r, beat("a", 100_000, 0, 0))
	require.InDelta(t, 10, add(r, beat("a", 101_000, 10, 0)).Writes, 0)
	later := beat("a", 102_000, 10, 0)
	later.At = 50_000
	require.Zero(t, add(r, later).Writes, "the process has written nothing since")
	later = beat("a", 103_000, 15, 0)
	later.At = 51_000
	require.InDelta(t, 5, add(r, later).Writes, 0)
}

func TestDeferredRowsCoverTheWindow(t *testing.T) {
	t.Parallel()
	r := newRates()
	put := func(id string, at, hindered int64) Heartbeat {
		p := beat(id, at, 0, 0)
		p.Counts.Deferred = hindered
		return p
	}
	require.Zero(t, add(r, put("a", 1000, 500), put("b", 1000, 0)).Deferred, "nobody knows when")
	require.EqualValues(t, 7, add(r, put("a", 2000, 505), put("b", 2000, 2)).Deferred)
	require.EqualValues(t, 10, add(r, put("a", 3000, 508), put("b", 3000, 2)).Deferred)
	var last Snapshot
	for i := range int64(deferredWindow - 1) {
		last = add(r, put("a", 4000+1000*i, 508), put("b", 4000+1000*i, 2))
	}
	require.EqualValues(t, 3, last.Deferred)
	require.Zero(t, add(r, put("a", 90_000, 508), put("b", 90_000, 2)).Deferred)
	require.Len(t, r.deferred, deferredWindow)
}

func TestPercentilesCoverTheWindow(t *testing.T) {
	t.Parallel()
	r := newRates()
	require.EqualValues(t, -1, add(r, beat("a", 1000, 0, 0, 9, 9, 9, 9)).LagP50)
	// 50 keys within 1 s, 50 within 2 s.
	s := add(r, beat("a", 2000, 0, 0, 59, 109, 109, 109))
	require.EqualValues(t, 1000, s.LagP50)
	require.EqualValues(t, 1980, s.LagP99)
	require.EqualValues(t, 4000, s.LagBound)
	// A key above the last bound is reported with the last bound.
	s = add(r, beat("a", 3000, 0, 0, 59, 109, 109, 1109))
	require.EqualValues(t, 4000, s.LagP99)
	require.EqualValues(t, 4000, s.LagBound)
	var last Snapshot
	for i := range int64(lagWindow) {
		last = add(r, beat("a", 4000+1000*i, 0, 0, 59, 109, 109, 1109))
	}
	require.EqualValues(t, -1, last.LagP50, "ten samples later it is forgotten")
	require.Len(t, r.window, lagWindow)
}

func TestProcessesWithOtherBucketsAreSkipped(t *testing.T) {
	t.Parallel()
	r := newRates()
	other := beat("b", 1000, 0, 0, 0, 0, 0, 0)
	other.Counts.LagBounds = []float64{5, 6, 7}
	add(r, beat("a", 1000, 0, 0, 0, 0, 0, 0), other)
	later := beat("b", 2000, 0, 0, 100, 100, 100, 100)
	later.Counts.LagBounds = other.Counts.LagBounds
	require.EqualValues(t, 500, add(r, beat("a", 2000, 0, 0, 10, 10, 10, 10), later).LagP50)
}
