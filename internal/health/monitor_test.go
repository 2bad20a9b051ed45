package health

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// hearing is a Monitor that has taken a complete sample each second until second 0.
type hearing struct {
	monitor Monitor
	start   time.Time
}

func newHearing(t *testing.T) *hearing {
	t.Helper()
	h := &hearing{start: time.Now()}
	require.False(t, h.hears(0, 1_000_000, ""))
	return h
}

// hears takes a sample in the given second, at the given time of Redis's clock.
func (h *hearing) hears(second int, at int64, refusal string) bool {
	missed := h.monitor.missed(Snapshot{Sample: Sample{At: at}, Refusal: refusal}, h.start.Add(time.Duration(second)*time.Second))
	h.monitor.last.At = at
	return missed
}

func TestProcessesAreNotGoneUntilHeartbeatsArriveAgain(t *testing.T) {
	t.Parallel()
	h := newHearing(t)
	require.False(t, h.hears(1, 1_001_000, "MISCONF"), "one beat that is lost makes nobody seem gone")
	require.True(t, h.hears(2, 1_002_000, "MISCONF"))
	require.True(t, h.hears(10, 1_010_000, "MISCONF"))
	require.True(t, h.hears(11, 1_011_000, ""))
	require.True(t, h.hears(15, 1_015_000, ""))
	require.False(t, h.hears(16, 1_016_000, ""), "who has not said so by then does not run")

	h.monitor.lose(h.start.Add(20 * time.Second))
	require.False(t, h.hears(21, 1_021_000, ""), "a sample that fails now and then hides nothing")
	h.monitor.lose(h.start.Add(22 * time.Second))
	h.monitor.lose(h.start.Add(24 * time.Second))
	require.True(t, h.hears(25, 1_025_000, ""), "Redis did not answer")
}

func TestBackLastsForTheTrendWindow(t *testing.T) {
	t.Parallel()
	whole, start := Snapshot{}, time.Now()
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	var away, part Monitor
	require.False(t, away.back(whole, at(0)))
	away.lose(at(1))
	away.lose(at(3))
	require.True(t, away.back(whole, at(4)))
	require.True(t, away.back(whole, at(17)))
	require.False(t, away.back(whole, at(18)))

	require.False(t, part.back(Snapshot{Sample: Sample{Away: 1}}, at(1)), "it lacks shards")
	require.True(t, part.back(whole, at(2)))
	require.False(t, part.back(Snapshot{Unread: true}, at(3)))
	require.False(t, part.back(Snapshot{Refusal: "MISCONF"}, at(4)))
	require.False(t, part.back(whole, at(16)))
}

func TestNodeThatIsLateOnceIsNotDown(t *testing.T) {
	t.Parallel()
	whole, part, silent := Snapshot{}, Snapshot{Sample: Sample{Away: 21}}, Snapshot{Unread: true}
	m := NewMonitor(nil, nil, nil)
	for _, s := range []Snapshot{part, silent} {
		require.False(t, m.lateOnce(whole))
		require.True(t, m.lateOnce(s))
		require.False(t, m.lateOnce(whole), "the next is as it should be")
		require.True(t, m.lateOnce(s))
		require.False(t, m.lateOnce(s), "the second in a row")
		m.last = s
		require.False(t, m.lateOnce(s))
		m.last = whole
	}
	m.failing = time.Now()
	require.False(t, m.lateOnce(part), "it is not the first that is wrong")
}

func TestProcessesAreNotGoneAfterAClockJump(t *testing.T) {
	t.Parallel()
	for _, at := range []int64{1_061_000, 941_000} {
		h := newHearing(t)
		require.True(t, h.hears(1, at, ""))
		require.True(t, h.hears(6, at+5000, ""))
		require.False(t, h.hears(7, at+6000, ""))
		require.False(t, h.hears(9, at+6000, ""), "a sample may take its time")
	}
}

func TestNewMasterThatContinuesAKnownOneHasBeenPromoted(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(second int) time.Time { return start.Add(time.Duration(second) * time.Second) }
	read := func(second int, all ...cache.Master) cache.Info {
		return cache.Info{Known: true, Read: at(second), Masters: all}
	}
	a, b := cache.Master{Incarnation: "a", Former: "0", Uptime: time.Hour}, cache.Master{Incarnation: "b", Former: "0", Uptime: time.Hour}
	m := NewMonitor(nil, nil, slog.New(slog.DiscardHandler))
	require.Zero(t, m.promotion(read(0, a, b), at(0)), "they may have been there for long")
	require.Zero(t, m.promotion(read(5, a), at(5)), "one is away")
	require.Zero(t, m.promotion(read(10, a, b), at(10)), "and back")
	for second := 10; second < 15; second++ {
		require.Zero(t, m.promotion(read(10, a, b), at(second)), "INFO is not read in each second")
	}
	a = cache.Master{Incarnation: "a2", Former: "a", Uptime: 4 * time.Second}
	require.Zero(t, m.promotion(read(15, a, b), at(15)), "restarted, with its own data")
	b = cache.Master{Incarnation: "b2", Former: "0", Uptime: time.Hour}
	require.Zero(t, m.promotion(read(20, a, b), at(20)), "its first replica has come")

	c := cache.Master{Incarnation: "c", Former: "a2", Uptime: time.Hour}
	require.Positive(t, m.promotion(read(25, c, b), at(25)))
	require.Equal(t, 30*time.Second, m.promotion(read(55, c, b), at(55)))
	require.True(t, m.missed(Snapshot{}, at(26)), "heartbeats may be lost")
	require.Zero(t, m.promotion(read(85, c, b), at(85)))
}
