package health

import (
	"cmp"
	"slices"
	"time"
)

// lateAfter is the age above the flush interval at which an unsynced write counts as late.
const lateAfter = 10 * time.Second

// Fleet summarizes the heartbeats. All fields but LastUp and LastDown cover only processes that are alive.
type Fleet struct {
	Alive map[string]int // number of processes by role

	Up, Down         int // workers that reach Postgres, and workers that do not
	LastUp, LastDown int // the same for workers that are silent now, by their last heartbeat

	PostgresFor time.Duration // how long all workers have agreed on the state of Postgres; 0: they disagree
	Turned      bool          // a worker observed the beginning of PostgresFor; else it is a lower bound
	Flushing    time.Duration // how long at least one worker has reached Postgres

	Swept                        time.Duration // time since the last sweep; -1: none was sent
	Scheduled                    time.Duration // uptime of the oldest scheduler
	FlushInterval, SweepInterval time.Duration
	MaxDirty                     int64 // the lowest of all api processes; 0: unknown
}

// firstContact is the time in which a new worker notices that Postgres hangs, if there is anything to flush. Until then the worker
// assumes that Postgres is up.
const firstContact = 30 * time.Second

// Fleet summarizes the heartbeats.
func (s Snapshot) Fleet() Fleet {
	f := Fleet{Alive: make(map[string]int), Swept: -1}
	var states []time.Duration
	var observed time.Duration // the longest state whose beginning a worker observed
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
				observed = max(observed, since)
			}
		}
	}
	switch {
	case len(states) == 0:
	case f.Up == 0: // down since the first worker noticed
		f.PostgresFor = slices.Max(states)
		f.Turned = observed == f.PostgresFor
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

// Unswept reports whether a sweep is overdue, counted from the last one, or from the start of the oldest scheduler.
func (f *Fleet) Unswept() bool {
	since := f.Swept
	if since < 0 {
		since = f.Scheduled
	}
	return since > 3*f.SweepInterval+lateAfter
}

// Late returns the age above which an unsynced write is late.
func (f *Fleet) Late() time.Duration { return f.FlushInterval + lateAfter }
