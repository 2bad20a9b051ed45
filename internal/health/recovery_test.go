package health

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// recovery simulates a Redis with 64 shards second by second. Its workers empty four shards at once.
type recovery struct {
	monitor Monitor
	at      int64 // ms
	dirty   [64]int64
	since   [64]int64 // time of the oldest key, ms
}

// next returns the snapshot of the next second. The keys of drained shards were written just before it.
func (r *recovery) next() Snapshot {
	r.at += 1000
	c := well()
	c.At, c.Dirty, c.Oldest = r.at, 0, 0
	for i, n := range r.dirty {
		oldest := Milliseconds(r.at - r.since[i])
		if n == 0 {
			oldest = 0
		}
		c.Shards = append(c.Shards, cache.ShardBacklog{Backlog: cache.Backlog{Dirty: n, Oldest: oldest}})
		c.Dirty += n
		c.Oldest = max(c.Oldest, oldest.Milliseconds())
	}
	r.monitor.store(&c)
	return c
}

// drain removes keys from the first four shards that have keys from before the time.
func (r *recovery) drain(before, keys int64) (more bool) {
	drained := 0
	for i := range r.dirty {
		if r.since[i] > before || r.dirty[i] == 0 || drained == 4 {
			continue
		}
		drained++
		r.dirty[i] -= keys / 4
		r.since[i] += 100 // the oldest keys are flushed first
		if r.dirty[i] <= 0 {
			r.dirty[i], r.since[i] = 0, r.at
		}
	}
	return drained > 0
}

func TestRecoveryIsCatchingUpUntilKeysAreStuck(t *testing.T) {
	t.Parallel()
	r := &recovery{at: 10_000_000}
	outage := r.at - time.Hour.Milliseconds()
	for i := range r.dirty {
		r.dirty[i], r.since[i] = 16_000, outage
	}
	for range 20 {
		require.Equal(t, Bad, r.next().Judge().Level, "nothing moves yet")
	}
	start := r.at
	for more := true; more; {
		more = r.drain(start, 8000)
		c := r.next()
		if r.at-start > trendWindow.Milliseconds() && c.Dirty > 0 {
			require.Contains(t, c.Judge().Sentence, "Catching up", "%d s", (r.at-start)/1000)
		}
	}
	require.Equal(t, Good, r.next().Judge().Level)

	// Five keys of one shard are never flushed nor set aside, and the backlog of the other shards fluctuates.
	r.since[9] = outage
	for second := range int64(300) {
		for i := range r.dirty {
			r.dirty[i] = 5 + (second*7+int64(i)*13)%11 + second%30
			if i != 9 {
				r.since[i] = r.at
			}
		}
		s := r.next().Judge()
		if second > 15 {
			require.Equal(t, Bad, s.Level, s.Sentence)
			require.Contains(t, s.Sentence, "Falling behind")
		}
	}
}
