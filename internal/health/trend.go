package health

import (
	"slices"
	"time"
)

const (
	// trendWindow is the time over which a trend is computed: several flush intervals.
	trendWindow = 15 * time.Second

	// soon is the remaining time below which a shrinking backlog counts as catching up.
	soon = time.Hour
)

// window returns the first and the last sample of the last 15 s, or of a shorter history. ok is false below 3 s.
func (s Snapshot) window() (then, now Sample, ok bool) {
	if len(s.History) == 0 {
		return then, now, false
	}
	now = s.History[len(s.History)-1]
	then = now
	for _, h := range slices.Backward(s.History) {
		if now.At-h.At > trendWindow.Milliseconds() || h.Away != now.Away { // missing shards must not look like flushed keys
			break
		}
		then = h
	}
	return then, now, now.At-then.At >= 3000
}

// trend returns the growth of the backlog over the window in keys per second, or 0 if it is unknown.
func (s Snapshot) trend() float64 {
	then, now, ok := s.window()
	if !ok {
		return 0
	}
	return float64(now.Dirty-then.Dirty) / (float64(now.At-then.At) / 1000)
}

// catchingUp reports whether the backlog shrinks steadily and fast enough, and includes late keys: it also shrinks if most keys are
// flushed while some are stuck.
func (s Snapshot) catchingUp(late time.Duration) bool {
	return s.trend() < 0 && s.left() < soon && s.shrinks() && s.moves(late)
}

// left returns the time to the end of the backlog, or 0 if it does not shrink.
func (s Snapshot) left() time.Duration {
	trend := s.trend()
	if trend >= 0 {
		return 0
	}
	return time.Duration(min(float64(s.Dirty)/-trend, 1e9) * float64(time.Second))
}

// shrinks reports whether the backlog decreased throughout the window: each third has fewer keys than the one before. A fluctuating
// backlog may decrease over the whole window too.
func (s Snapshot) shrinks() bool {
	then, now, ok := s.window()
	if !ok {
		return false
	}
	var sum, n [3]int64
	for _, h := range slices.Backward(s.History) {
		if h.At < then.At {
			break
		}
		third := min(2, 3*(h.At-then.At)/(now.At-then.At))
		sum[third] += h.Dirty
		n[third]++
	}
	mean := func(third int) float64 { return float64(sum[third]) / float64(max(n[third], 1)) }
	return mean(0) > mean(1) && mean(1) > mean(2)
}

// moves reports whether at least one shard flushed its oldest late key within the window. The oldest key of all shards does not show this:
// workers empty one shard after the other, so it gets older until they reach its shard.
func (s Snapshot) moves(late time.Duration) bool {
	const stuck = time.Second // a smaller difference may be clock skew in a cluster
	passed := Milliseconds(s.At - s.Then.At)
	for i, then := range s.Then.Shards {
		if then.Oldest > late && i < len(s.Shards) && !s.Shards[i].Unknown && s.Shards[i].Oldest < then.Oldest+passed-stuck {
			return true
		}
	}
	return false
}

// Coalescing returns the number of writes per row over the last minute, or 0 if no row was flushed.
func (s Snapshot) Coalescing() float64 {
	var writes, rows float64
	for h := range s.since(time.Minute) {
		writes += max(0, h.Writes)
		rows += max(0, h.Rows)
	}
	if rows == 0 {
		return 0
	}
	return writes / rows
}

// Failing returns the rate of failed requests over the last ten seconds, in 1/s.
func (s Snapshot) Failing() float64 {
	var sum float64
	var n int
	for h := range s.since(10*time.Second - time.Millisecond) {
		sum += max(0, h.Rejected)
		n++
	}
	return sum / float64(max(n, 1))
}

// since iterates over the samples up to the given age, newest first.
func (s Snapshot) since(age time.Duration) func(yield func(Sample) bool) {
	return func(yield func(Sample) bool) {
		for _, h := range slices.Backward(s.History) {
			if s.At-h.At > age.Milliseconds() || !yield(h) {
				return
			}
		}
	}
}

// Flushes reports whether workers have flushed throughout the trend's window.
func (s Snapshot) Flushes() bool {
	f := s.Fleet()
	return f.Up > 0 && f.Flushing >= trendWindow && s.pausedFlush() == ""
}

// Milliseconds converts a number of a Sample or a Heartbeat to a duration.
func Milliseconds(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }
