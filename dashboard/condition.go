package dashboard

import (
	"cmp"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/pulse"
	"github.com/afterwrite/afterwrite/internal/sample"
)

// condition is what the overview draws its conclusion from.
type condition struct {
	sample.Snapshot

	Failed   time.Duration   // Redis has not answered, or not served, for so long; 0: it does
	Denial   string          // the word by which it refuses to serve (see cache.Denial); "": it says nothing
	Starting bool            // there is no sample yet
	Deaf     bool            // until just now Redis did not take what processes say
	Back     bool            // Redis does all again, and until less than the trend's window ago it did not
	History  []sample.Sample // of the last 15 minutes, the oldest first, this one included
	Then     shardsAt        // the shards as the trend's window began
}

// shardsAt is what the shards had at one time.
type shardsAt struct {
	At     int64 // ms by Redis's clock; 0: not known
	Shards []cache.ShardBacklog
}

// unheard says whether processes that run may not have been able to say so: then nobody knows who does.
func (c condition) unheard() bool { return c.Deaf || c.Unread || c.Refusal != "" }

// fleet is what the processes say together. Those that are gone say nothing any more.
type fleet struct {
	Alive map[string]int // by role

	Up, Down         int // workers that reach Postgres, and that do not
	LastUp, LastDown int // likewise, of those that are silent, when they were not

	PostgresFor time.Duration // for how long all workers have agreed; 0: they do not
	Turned      bool          // one of them saw it turn to that; else it may have been so before they started
	Flushing    time.Duration // for how long one of them at least can have flushed

	Swept                        time.Duration // since the last sweep; -1: none was sent
	Scheduled                    time.Duration // for how long the oldest scheduler has run
	FlushInterval, SweepInterval time.Duration
	MaxDirty                     int64 // the least of all apis; 0: not known
}

// firstContact is within what a worker that starts has asked Postgres for the first time, if there is anything to flush; one
// whose Postgres hangs waits for it. Until then it takes Postgres to be up.
const firstContact = 30 * time.Second

func (c condition) fleet() fleet {
	f := fleet{Alive: make(map[string]int), Swept: -1}
	var states []time.Duration
	var seen time.Duration // the longest outage whose beginning a worker saw
	for _, p := range c.Processes {
		if !p.Alive() {
			f.last(p)
			continue
		}
		f.Alive[p.Role]++
		f.add(p)
		if p.Role == pulse.RoleWorker {
			states = append(states, duration(p.PostgresFor)+p.Age)
			if p.Postgres != pulse.PostgresDown {
				f.Flushing = max(f.Flushing, duration(p.PostgresFor)+p.Age)
			}
			if p.Uptime-p.PostgresFor > firstContact.Milliseconds() {
				seen = max(seen, duration(p.PostgresFor)+p.Age)
			}
		}
	}
	switch {
	case len(states) == 0:
	case f.Up == 0: // it is down since the first noticed
		f.PostgresFor = slices.Max(states)
		f.Turned = seen == f.PostgresFor
	case f.Down == 0: // it is up for all since the last noticed
		f.PostgresFor = slices.Min(states)
	}
	f.FlushInterval = cmp.Or(f.FlushInterval, time.Second)
	return f
}

// add takes what one process says.
func (f *fleet) add(p pulse.Pulse) {
	switch p.Role {
	case pulse.RoleWorker:
		f.FlushInterval = max(f.FlushInterval, duration(p.Settings.FlushInterval))
		if p.Postgres == pulse.PostgresDown {
			f.Down++
		} else {
			f.Up++
		}
	case pulse.RoleScheduler:
		f.SweepInterval = max(f.SweepInterval, duration(p.Settings.SweepInterval))
		f.Scheduled = max(f.Scheduled, duration(p.Uptime)+p.Age)
		if ago := duration(p.SweptAgo) + p.Age; p.SweptAgo >= 0 && (f.Swept < 0 || ago < f.Swept) {
			f.Swept = ago
		}
	case pulse.RoleAPI:
		if limit := p.Settings.MaxDirty; limit > 0 && (f.MaxDirty == 0 || limit < f.MaxDirty) {
			f.MaxDirty = limit
		}
	}
}

// unswept says whether a sweep is overdue: since the last one, or since there is a scheduler that should have sent one.
func (f *fleet) unswept() bool {
	since := f.Swept
	if since < 0 {
		since = f.Scheduled
	}
	return since > 3*f.SweepInterval+lateAfter
}

// trendWindow is what a trend is taken over: several flush intervals, and short enough to be news.
const trendWindow = 15 * time.Second

// trend is how many dirty keys more there are each second, over the window; 0: not known.
func (c condition) trend() float64 {
	then, now, ok := c.window()
	if !ok {
		return 0
	}
	return float64(now.Dirty-then.Dirty) / (float64(now.At-then.At) / 1000)
}

// window is the first and the last sample of the last 15 s, or of what there is of them. It is not ok below 3 s.
func (c condition) window() (then, now sample.Sample, ok bool) {
	if len(c.History) == 0 {
		return then, now, false
	}
	now = c.History[len(c.History)-1]
	then = now
	for _, s := range slices.Backward(c.History) {
		if now.At-s.At > trendWindow.Milliseconds() || s.Away != now.Away { // else shards that went look like keys that did
			break
		}
		then = s
	}
	return then, now, now.At-then.At >= 3000
}

// shrinks says whether the backlog became less all through the window: each third of it has less than the one before. What only
// wavers does so at times.
func (c condition) shrinks() bool {
	then, now, ok := c.window()
	if !ok {
		return false
	}
	var sum, n [3]int64
	for _, s := range slices.Backward(c.History) {
		if s.At < then.At {
			break
		}
		third := min(2, 3*(s.At-then.At)/(now.At-then.At))
		sum[third] += s.Dirty
		n[third]++
	}
	mean := func(third int) float64 { return float64(sum[third]) / float64(max(n[third], 1)) }
	return mean(0) > mean(1) && mean(1) > mean(2)
}

// coalescing is how many writes came to one row in the last minute; 0: no row was flushed.
func (c condition) coalescing() float64 {
	var writes, rows float64
	for _, s := range slices.Backward(c.History) {
		if c.At-s.At > time.Minute.Milliseconds() {
			break
		}
		writes += max(0, s.Writes)
		rows += max(0, s.Rows)
	}
	if rows == 0 {
		return 0
	}
	return writes / rows
}

// rejected is how many requests failed each second, in the last ten seconds.
func (c condition) rejected() float64 {
	var sum float64
	var n int
	for _, s := range slices.Backward(c.History) {
		if c.At-s.At >= 10_000 {
			break
		}
		sum += max(0, s.Rejected)
		n++
	}
	return sum / float64(max(n, 1))
}

func duration(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }
