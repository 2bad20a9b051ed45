package dashboard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/tasks"
)

// well returns the snapshot of a healthy system.
func well() health.Snapshot {
	settings := health.Settings{FlushInterval: 1000, SweepInterval: 5000, MaxDirty: 1_000_000}
	process := func(role string) health.Heartbeat {
		return health.Heartbeat{ID: role, Role: role, Uptime: 7_200_000, SweptAgo: -1, Settings: settings}
	}
	scheduler, worker := process(health.RoleScheduler), process(health.RoleWorker)
	scheduler.SweptAgo = 2000
	worker.Postgres, worker.PostgresFor = health.PostgresUp, 3_600_000
	return health.Snapshot{
		Sample:    health.Sample{At: 1_000_000, Oldest: 1200, Dirty: 50},
		Processes: []health.Heartbeat{process(health.RoleAPI), process(health.RoleDashboard), scheduler, worker},
		Redis:     cache.Info{Known: true, AOF: true, Used: 1, Limit: 100, Policy: "noeviction"},
	}
}

func TestLineHasAGapForMissingSamples(t *testing.T) {
	t.Parallel()
	c := health.Snapshot{Sample: health.Sample{At: 1_000_000}, History: []health.Sample{
		{At: 990_000, LagP50: 50}, {At: 991_000, LagP50: 100}, {At: 992_000, LagP50: -1}, {At: 1_000_000, LagP50: 0},
	}}
	require.Equal(t, "M890.0 100.0L891.0 0.0M900.0 200.0", path(c, func(s health.Sample) float64 { return float64(s.LagP50) }, 100))
}

func TestCeilingIsRound(t *testing.T) {
	t.Parallel()
	for value, want := range map[float64]float64{0: 10, 10: 10, 11: 20, 511: 600, 2001: 3000, 98000: 100000} {
		require.InDelta(t, want, ceiling(value, "keys"), 0)
	}
}

// summary returns the summary on /shards of the frame.
func summary(t *testing.T, f *frame) string {
	t.Helper()
	p := &shardsPage{page: newPage(&shared{}, "/shards", "Shards", "shards.html")}
	text, err := p.part("summary", p.data(f))
	require.NoError(t, err)
	return text
}

// sharded returns a frame with these numbers of dirty keys in its shards.
func sharded(dead int64, dirty ...int64) *frame {
	f := &frame{Snapshot: well()}
	f.Dirty, f.Dead = 0, dead
	for _, n := range dirty {
		f.Dirty += n
		var b cache.ShardBacklog
		b.Dirty = n
		f.Shards = append(f.Shards, b)
	}
	return f
}

func TestSummaryOfShardsCountsDeadLetters(t *testing.T) {
	t.Parallel()
	require.Contains(t, summary(t, sharded(0, 0, 0)), "Postgres has everything.")
	require.Contains(t, summary(t, sharded(1, 0, 0)), "Postgres has everything but 1 dead letter.")
}

func TestShardThatDoesNotAnswerIsNotShownAsEmpty(t *testing.T) {
	t.Parallel()
	f := sharded(0, 0, 5)
	f.Shards[0].Unknown, f.Away = true, 1
	require.Contains(t, summary(t, f), "1 shard does not answer.</strong> The others have 5 dirty keys and 0 dead letters.")
	p := &shardsPage{page: newPage(&shared{}, "/shards", "Shards", "shards.html")}
	rows, err := p.part("rows", p.data(f))
	require.NoError(t, err)
	require.Contains(t, rows, `<tr><th scope="row">00</th><td colspan="4" class="bad">does not answer</td></tr>`)
	require.Contains(t, rows, `<tr><th scope="row">01</th><td class="num">5</td>`)
	heat, err := p.part("heat", p.data(f))
	require.NoError(t, err)
	require.Contains(t, heat, "Shard 00: does not answer")
	c := f.Snapshot
	require.Equal(t, "without 1 shard that does not answer", tiles(c, c.Fleet())[3].Note)
}

func TestNumbersThatNoProcessReportedAreUnknown(t *testing.T) {
	t.Parallel()
	c := well()
	c.Away, c.Unread, c.Processes = 21, true, nil
	c.Writes, c.Rows, c.Rejected, c.LagP50, c.LagP99 = -1, -1, -1, -1, -1
	f := c.Fleet()
	for _, shown := range tiles(c, f) {
		switch shown.Label {
		case "Writes", "Rejected":
			require.Equal(t, "the apis could not say", shown.Note)
		case "Rows", "Coalescing", "Sync lag":
			require.Equal(t, tile{Label: shown.Label, Value: "–", Note: "the workers could not say"}, shown)
		}
	}
	require.Equal(t, [][2]string{{"For", "–"}, {"Reached by", "–"}, {"Rows written", "–"}}, postgresFacts(c, f).Pairs)
	require.Equal(t, [][2]string{{"Last one sent", "–"}, {"Every", "–"}, {"Flush interval", "–"}}, sweepFacts(c, f).Pairs)
	c = well()
	require.Equal(t, [][2]string{{"Last one sent", "2.0 s ago"}, {"Every", "5.0 s"}, {"Flush interval", "1.0 s"}}, sweepFacts(c, c.Fleet()).Pairs)
}

func TestLimitOfDirtyKeysIncludesDeadLetters(t *testing.T) {
	t.Parallel()
	c := well()
	require.Equal(t, "limit 1,000,000, dead letters included", tiles(c, c.Fleet())[3].Note)
}

func TestLagBeyondTheLastBucketIsShownAsMore(t *testing.T) {
	t.Parallel()
	lag := func(p50, p99 int64) tile {
		c := well()
		c.LagP50, c.LagP99, c.LagBound = p50, p99, 1_800_000
		return tiles(c, c.Fleet())[5]
	}
	require.Equal(t, tile{Label: "Sync lag", Value: "0.9 s", Note: "half of all; 99 of 100 within 1.2 s"}, lag(900, 1200))
	require.Equal(t, tile{Label: "Sync lag", Value: "0.9 s", Note: "half of all; the slowest of 100 over 30 min"}, lag(900, 1_800_000))
	require.Equal(t, "over 30 min", lag(1_800_000, 1_800_000).Value)
}

func TestShardStandsOutOnlyBeyondRandomVariation(t *testing.T) {
	t.Parallel()
	require.Contains(t, summary(t, sharded(0, 1, 2, 9, 0)), "None stands out.")
	require.Contains(t, summary(t, sharded(0, 100, 220, 100, 100)), "None stands out.")
	require.Contains(t, summary(t, sharded(0, 100, 500, 100, 100)), "shard 01 has the most.")
}

// waiting returns a frame with 64 shards. Each of the first ones has one dirty key of the given age.
func waiting(ages ...time.Duration) *frame {
	dirty := make([]int64, 64)
	for i := range ages {
		dirty[i] = 1
	}
	f := sharded(0, dirty...)
	for i, age := range ages {
		f.Shards[i].Oldest = age
	}
	return f
}

func TestKeyThatWaitsForItsFlushIsNotStuck(t *testing.T) {
	t.Parallel()
	f := waiting(2*time.Second, 20*time.Second, 15*time.Second)
	f.Processes[3].Settings.FlushInterval = 30_000
	require.Contains(t, summary(t, f), "None stands out.")
	f.Shards[1].Oldest = 41 * time.Second
	require.Contains(t, summary(t, f), "shard 01 has waited longest, for 41 s.")
}

func TestEmptyShardsAreComparedOnlyWhileWorkersFlush(t *testing.T) {
	t.Parallel()
	const stuck = "shard 01 has waited longest, for 5 min."
	for what, stop := range map[string]func(f *frame){
		"Postgres is down":      func(f *frame) { f.Processes[3].Postgres = health.PostgresDown },
		"it has just come back": func(f *frame) { f.Processes[3].PostgresFor = 5000 },
		"no worker runs":        func(f *frame) { f.Processes[3].Age = time.Minute },
		"flushes are paused":    func(f *frame) { f.Paused = []string{tasks.QueueFlush} },
	} {
		f := waiting(4*time.Minute, 5*time.Minute, 4*time.Minute)
		require.Contains(t, summary(t, f), stuck)
		stop(f)
		require.Contains(t, summary(t, f), "None stands out.", what)
		f.Shards[0].Oldest, f.Shards[2].Oldest = time.Second, time.Second
		require.Contains(t, summary(t, f), stuck, what)
	}
}

func TestShardThatDoesNotAnswerIsMarked(t *testing.T) {
	t.Parallel()
	f := sharded(0, 0, 5)
	f.Shards[0].Unknown, f.Away = true, 1
	p := &shardsPage{page: newPage(&shared{}, "/shards", "Shards", "shards.html")}
	heat, err := p.part("heat", p.data(f))
	require.NoError(t, err)
	require.Contains(t, heat, `<li class="cell away" title="Shard 00: does not answer">`)
	require.Contains(t, heat, `<li class="cell heat-1" title="Shard 01: 5 dirty keys`)
	page, err := p.part("content", view{Data: p.data(f)})
	require.NoError(t, err)
	require.Contains(t, page, `<span class="cell away">no answer</span>`, "the legend explains it")
}
