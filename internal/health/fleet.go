package health

import (
	"cmp"
	"slices"
	"time"
)

// lateAfter is how far Postgres may be behind, beyond the flush interval, before it counts as late.
const lateAfter = 10 * time.Second

// Fleet is what the processes report together. Only those that are alive count, but for LastUp and LastDown.
type Fleet struct {
	Alive map[string]int // processes by role

	Up, Down         int // workers that reach Postgres, and that do not
	LastUp, LastDown int // likewise, of workers that are silent now, by their last heartbeat

	PostgresFor time.Duration // for how long all workers have agreed on the state of Postgres; 0: they do not
	Turned      bool          // a worker saw the beginning of PostgresFor; else the state may be older than the workers
	Flushing    time.Duration // for how long at least one worker has reached Postgres

	Swept                        time.Duration // since the last sweep; -1: none was sent
	Scheduled                    time.Duration // uptime of the oldest scheduler
	FlushInterval, SweepInterval time.Duration
	MaxDirty                     int64 // the least of all api processes; 0: not known
}

// firstContact is the time within which a new worker has asked Postgres for the first time, if there is anything to flush and
// Postgres hangs. Until then it assumes that Postgres is up.
const firstContact = 30 * time.Second

// Fleet sums up the heartbeats.
func (s Snapshot) Fleet() Fleet {
	f := Fleet{Alive: make(map[string]int), Swept: -1}
	var states []time.Duration
	var seen time.Duration // the longest outage whose beginning a worker saw
	for _, p := range s.Processes {
		if !p.Alive() {
			f.addSilent(p)
			continue
		}
		f.Alive[p.Role]++
		f.add(p)
		if p.Role == RoleWorker {
			since := Milliseconds(p.PostgresFor) + p.Age
			states = append(states, since)
			if p.Postgres != PostgresDown {
				f.Flushing = max(f.Flushing, since)
			}
			if p.Uptime-p.PostgresFor > firstContact.Milliseconds() {
				seen = max(seen, since)
			}
		}
	}
	switch {
	case len(states) == 0:
	case f.Up == 0: // down since the first worker noticed
		f.PostgresFor = slices.Max(states)
		f.Turned = seen == f.PostgresFor
	case f.Down == 0: // up for all since the last worker noticed
		f.PostgresFor = slices.Min(states)
	}
	f.FlushInterval = cmp.Or(f.FlushInterval, time.Second)
	return f
}

func (f *Fleet) add(p Heartbeat) {
	switch p.Role {
	case RoleWorker:
		f.FlushInterval = max(f.FlushInterval, Milliseconds(p.Settings.FlushInterval))
		if p.Postgres == PostgresDown {
			f.Down++
		} else {
			f.Up++
		}
	case RoleScheduler:
		f.SweepInterval = max(f.SweepInterval, Milliseconds(p.Settings.SweepInterval))
		f.Scheduled = max(f.Scheduled, Milliseconds(p.Uptime)+p.Age)
		if ago := Milliseconds(p.SweptAgo) + p.Age; p.SweptAgo >= 0 && (f.Swept < 0 || ago < f.Swept) {
			f.Swept = ago
		}
	case RoleAPI:
		if limit := p.Settings.MaxDirty; limit > 0 && (f.MaxDirty == 0 || limit < f.MaxDirty) {
			f.MaxDirty = limit
		}
	}
}

func (f *Fleet) addSilent(p Heartbeat) {
	switch {
	case p.Role != RoleWorker:
	case p.Postgres == PostgresDown:
		f.LastDown++
	default:
		f.LastUp++
	}
}

// Unswept reports whether a sweep is overdue: since the last one, or since the start of the scheduler that should have sent one.
func (f *Fleet) Unswept() bool {
	since := f.Swept
	if since < 0 {
		since = f.Scheduled
	}
	return since > 3*f.SweepInterval+lateAfter
}

// Late is the age above which an unsynced write is late, more than a flush explains.
func (f *Fleet) Late() time.Duration { return f.FlushInterval + lateAfter }
