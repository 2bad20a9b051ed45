package dashboard

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/pulse"
	"github.com/afterwrite/afterwrite/tasks"
)

// waiting is a frame with 64 shards, the first of which have one key each that has waited for so long.
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

func TestAKeyThatWaitsForItsFlushIsNotStuck(t *testing.T) {
	t.Parallel()
	f := waiting(2*time.Second, 20*time.Second, 15*time.Second)
	f.Processes[3].Settings.FlushInterval = 30_000
	require.Contains(t, summary(t, f), "None stands out.")
	f.Shards[1].Oldest = 41 * time.Second
	require.Contains(t, summary(t, f), "shard 01 has waited longest, for 41 s.")
}

func TestTheShardsWithoutKeysAreNoMeasureWhereNothingIsFlushed(t *testing.T) {
	t.Parallel()
	const stuck = "shard 01 has waited longest, for 5 min."
	for what, stop := range map[string]func(f *frame){
		"Postgres is down":      func(f *frame) { f.Processes[3].Postgres = pulse.PostgresDown },
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

func TestAShardThatDoesNotAnswerHasALookOfItsOwn(t *testing.T) {
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
	require.Contains(t, page, `<span class="cell away">no answer</span>`, "which the key explains")
}
