package health

import (
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// lagWindow is the number of samples for the percentiles of the sync lag: several flush intervals.
	lagWindow = 10

	// deferredWindow is the number of samples over which deferred rows are counted. A locked row is tried every few seconds, and a slow
	// one takes 10 s, so each is counted at least once in the window.
	deferredWindow = 30
)

// serverErrors are all problems that package api answers with 503, 504 or 500.
var serverErrors = []counter.Code{
	counter.CodeBackpressure, counter.CodeOverloaded, counter.CodeCacheFull, counter.CodeCacheUnavailable, // not applied
	counter.CodeDatabaseUnavailable,                  // a read
	counter.CodeNotDurable,                           // applied
	counter.CodeOutcomeUnknown, counter.CodeInternal, // may have been applied
}

// rates computes rates from the counts of two heartbeats of a process. A restarted process has a new ID, so its counts begin anew.
type rates struct {
	processes map[string]*track
	window    []flushed // one for each of the last lagWindow samples, newest last
	deferred  []int64   // one for each of the last deferredWindow samples
	traffics  traffics
}

// track is the state of one process.
type track struct {
	last                   Heartbeat
	writes, rows, rejected float64 // 1/s, between its last two heartbeats
	traffic                Traffic // the same
}

// flushed is a histogram of flushed keys by sync lag. Its buckets are not cumulative.
type flushed struct {
	bounds []float64
	keys   []int64
}

func newRates() *rates { return &rates{processes: make(map[string]*track)} }

// add processes the last heartbeats of all processes, and sets the rates in s.
func (r *rates) add(s *Snapshot, all []Heartbeat) {
	var lag flushed
	var deferred int64
	traffic, compared := newTraffic(), len(r.traffics) > 0
	seen := make(map[string]bool, len(all))
	for _, p := range all {
		seen[p.ID] = true
		t, known := r.processes[p.ID]
		if !known {
			t = &track{last: p}
			r.processes[p.ID] = t
			continue
		}
		compared = true
		if p.Uptime > t.last.Uptime { // not At: Redis's clock may be set back
			lag.add(t.last.Counts, p.Counts)
			deferred += grown(t.last.Counts.Deferred, p.Counts.Deferred)
			t.advance(p)
		}
		if p.Alive() {
			s.Writes += t.writes
			s.Rows += t.rows
			s.Rejected += t.rejected
			traffic.add(t.traffic, 1)
		}
	}
	for id := range r.processes {
		if !seen[id] {
			delete(r.processes, id)
		}
	}
	r.window = append(r.window, lag)
	r.window = slices.Delete(r.window, 0, max(0, len(r.window)-lagWindow))
	r.deferred = append(r.deferred, deferred)
	r.deferred = slices.Delete(r.deferred, 0, max(0, len(r.deferred)-deferredWindow))
	for _, n := range r.deferred {
		s.Deferred += n
	}
	if compared { // the first heartbeats have no rates
		s.Traffic = r.traffics.add(traffic)
	}
	sum := r.flushed()
	s.LagP50, s.LagP99 = sum.percentile(0.50), sum.percentile(0.99)
	if len(sum.bounds) > 0 {
		s.LagBound = ms(sum.bounds[len(sum.bounds)-1])
	}
}

func (t *track) advance(p Heartbeat) {
	took := float64(p.Uptime-t.last.Uptime) / 1000
	before, now := t.last.Counts, p.Counts
	t.writes = float64(grown(before.Writes, now.Writes)) / took
	t.rows = float64(grown(before.Rows, now.Rows)) / took
	t.rejected = float64(grown(rejections(before), rejections(now))) / took
	t.traffic = trafficBetween(before, now, took)
	t.last = p
}

// grown returns the growth of a count, or 0 if it decreased.
func grown(before, now int64) int64 { return max(0, now-before) }

func rejections(c Counts) int64 {
	var n int64
	for _, reason := range serverErrors {
		n += c.Rejected[string(reason)]
	}
	return n
}

// add adds the keys that one process flushed between two heartbeats. Processes of another version may have other buckets. The buckets of
// the first process are used, and processes with others are skipped.
func (f *flushed) add(before, now Counts) {
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

// flushed sums up the window.
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

// percentile returns the q-quantile of the sync lag in ms, or -1 if nothing was flushed. Like Prometheus's histogram_quantile, it
// interpolates linearly within a bucket.
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
		if i == len(f.bounds) { // the last bucket has no upper bound
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
