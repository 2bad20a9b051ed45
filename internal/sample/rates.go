package sample

import (
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/pulse"
)

const (
	// lagWindow is how many samples the percentiles of the sync lag are taken over: flushes come once in an interval.
	lagWindow = 10

	// HinderedWindow is how many samples rows that were put aside are counted over: the next sweep after 5 s tries them again, and one
	// that is slow takes 10 s then.
	HinderedWindow = 30
)

// faults are the reasons of failures that are ours, and not the client's (see the problems of package api): all that are
// answered 503, 504 or 500.
var faults = []counter.Code{
	counter.CodeBackpressure, counter.CodeOverloaded, counter.CodeCacheFull, counter.CodeCacheUnavailable, // not applied
	counter.CodeDatabaseUnavailable,                  // a read
	counter.CodeNotDurable,                           // applied
	counter.CodeOutcomeUnknown, counter.CodeInternal, // may have been applied
}

// rates makes rates out of counts, from one beat of a process to its next. An ID belongs to one run of a process, so a restart
// is another process, whose counts begin with its first beat that is seen.
type rates struct {
	processes map[string]*track
	window    []flushed // of the last samples, the newest last
	hindered  []int64   // likewise: rows that were put aside
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
func (r *rates) add(s *Snapshot, pulses []pulse.Pulse) {
	var lag flushed
	var hindered int64
	seen := make(map[string]bool, len(pulses))
	for _, p := range pulses {
		seen[p.ID] = true
		t, known := r.processes[p.ID]
		if !known {
			t = &track{last: p}
			r.processes[p.ID] = t
			continue
		}
		if p.Uptime > t.last.Uptime { // Redis's clock may be set back
			lag.add(t.last.Counts, p.Counts)
			hindered += grown(t.last.Counts.Hindered, p.Counts.Hindered)
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
	r.hindered = append(r.hindered, hindered)
	r.hindered = slices.Delete(r.hindered, 0, max(0, len(r.hindered)-HinderedWindow))
	for _, n := range r.hindered {
		s.Hindered += n
	}
	sum := r.flushed()
	s.LagP50, s.LagP99 = sum.percentile(0.50), sum.percentile(0.99)
	if len(sum.bounds) > 0 {
		s.LagBound = ms(sum.bounds[len(sum.bounds)-1])
	}
}

func (t *track) advance(p pulse.Pulse) {
	took := float64(p.Uptime-t.last.Uptime) / 1000
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
		n += c.Rejected[string(reason)]
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

// flushed is the sum of the window.
func (r *rates) flushed() flushed {
	var sum flushed
	for _, f := range r.window {
		if sum.bounds == nil && f.bounds != nil {
			sum = flushed{bounds: f.bounds, keys: make([]int64, len(f.keys))}
		}
		if f.bounds == nil || !slices.Equal(f.bounds, sum.bounds) {
			continue
		}
		for i, n := range f.keys {
			sum.keys[i] += n
		}
	}
	return sum
}

// percentile returns the sync lag in ms that the part q of the keys had at most, by linear interpolation in the bucket, as
// Prometheus's histogram_quantile does; -1 where nothing was flushed.
func (f *flushed) percentile(q float64) int64 {
	var total int64
	for _, n := range f.keys {
		total += n
	}
	if total == 0 {
		return -1
	}
	rank, below := q*float64(total), 0.0
	for i, n := range f.keys {
		if below+float64(n) < rank || n == 0 {
			below += float64(n)
			continue
		}
		if i == len(f.bounds) { // beyond the last bound nothing is known
			return ms(f.bounds[i-1])
		}
		low := 0.0
		if i > 0 {
			low = f.bounds[i-1]
		}
		return ms(low + (f.bounds[i]-low)*(rank-below)/float64(n))
	}
	return ms(f.bounds[len(f.bounds)-1])
}

func ms(seconds float64) int64 {
	return time.Duration(seconds * float64(time.Second)).Milliseconds()
}
