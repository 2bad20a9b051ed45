package sample

import (
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/pulse"
)

// lagWindow is how many samples the percentiles of the sync lag are taken over: flushes come once in an interval.
const lagWindow = 10

// faults are the reasons of rejections that are ours, and not the client's (see the problems of package api). The last two,
// answered 504 and 500, may have been applied; the others, answered 503, have not.
var faults = []string{"backpressure", "overloaded", "cache_full", "cache_unavailable", "outcome_unknown", "internal"}

// rates makes rates out of counts, from one beat of a process to its next. An ID belongs to one run of a process, so a restart
// is another process, whose counts begin with its first beat that is seen.
type rates struct {
	processes map[string]*track
	window    []flushed // of the last samples, the newest last
}

// track is what is known of one process.
type track struct {
	last                   pulse.Pulse
	writes, rows, rejected float64 // 1/s, between its last two beats
}

// flushed counts keys by sync lag, each bucket without those before it.
type flushed struct {
	bounds []float64
	keys   []int64
}

func newRates() *rates { return &rates{processes: make(map[string]*track)} }

// add takes the last beats of all processes, and sets what follows from them in s.
func (r *rates) add(s *Sample, pulses []pulse.Pulse) {
	var lag flushed
	seen := make(map[string]bool, len(pulses))
	for _, p := range pulses {
		seen[p.ID] = true
		t, known := r.processes[p.ID]
		if !known {
			t = &track{last: p}
			r.processes[p.ID] = t
			continue
		}
		if p.At > t.last.At {
			lag.add(t.last.Counts, p.Counts)
			t.advance(p)
		}
		if p.Alive() {
			s.Writes += t.writes
			s.Rows += t.rows
			s.Rejected += t.rejected
		}
	}
	for id := range r.processes {
		if !seen[id] {
			delete(r.processes, id)
		}
	}
	r.window = append(r.window, lag)
	r.window = slices.Delete(r.window, 0, max(0, len(r.window)-lagWindow))
	s.LagP50, s.LagP99 = r.percentile(0.50), r.percentile(0.99)
}

func (t *track) advance(p pulse.Pulse) {
	took := float64(p.At-t.last.At) / 1000
	before, now := t.last.Counts, p.Counts
	t.writes = float64(grown(before.Writes, now.Writes)) / took
	t.rows = float64(grown(before.Rows, now.Rows)) / took
	t.rejected = float64(grown(rejections(before), rejections(now))) / took
	t.last = p
}

// grown is how much a count has grown. One that went back has not.
func grown(before, now int64) int64 { return max(0, now-before) }

func rejections(c pulse.Counts) int64 {
	var n int64
	for _, reason := range faults {
		n += c.Rejected[reason]
	}
	return n
}

// add adds what was flushed between two beats of one process. Of processes with other buckets, of another version
// perhaps, the first counts.
func (f *flushed) add(before, now pulse.Counts) {
	if len(now.Lag) != len(now.LagBounds)+1 {
		return
	}
	if f.bounds == nil {
		f.bounds, f.keys = now.LagBounds, make([]int64, len(now.Lag))
	}
	if !slices.Equal(f.bounds, now.LagBounds) {
		return
	}
	var below int64
	for i, n := range now.Lag {
		if i < len(before.Lag) {
			n -= before.Lag[i]
		}
		f.keys[i] += max(0, n-below)
		below = max(0, n)
	}
}

// percentile returns the sync lag in ms that the part q of the keys had at most, by linear interpolation in the bucket, as
// Prometheus's histogram_quantile does; -1 where nothing was flushed.
func (r *rates) percentile(q float64) int64 {
	var sum flushed
	var total int64
	for _, f := range r.window {
		if sum.bounds == nil && f.bounds != nil {
			sum = flushed{bounds: f.bounds, keys: make([]int64, len(f.keys))}
		}
		if f.bounds == nil || !slices.Equal(f.bounds, sum.bounds) {
			continue
		}
		for i, n := range f.keys {
			sum.keys[i] += n
			total += n
		}
	}
	if total == 0 {
		return -1
	}
	rank, below := q*float64(total), 0.0
	for i, n := range sum.keys {
		if below+float64(n) < rank || n == 0 {
			below += float64(n)
			continue
		}
		if i == len(sum.bounds) { // beyond the last bound nothing is known
			return ms(sum.bounds[i-1])
		}
		low := 0.0
		if i > 0 {
			low = sum.bounds[i-1]
		}
		return ms(low + (sum.bounds[i]-low)*(rank-below)/float64(n))
	}
	return ms(sum.bounds[len(sum.bounds)-1])
}

func ms(seconds float64) int64 {
	return time.Duration(seconds * float64(time.Second)).Milliseconds()
}
