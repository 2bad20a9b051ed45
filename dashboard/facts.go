package dashboard

import (
	"fmt"

	"github.com/afterwrite/afterwrite/internal/health"
)

// facts describe one part of the system.
type facts struct {
	Title string
	Pairs [][2]string
	Level health.Level // level of Word
	Word  string
}

// notKnown is the word for a state that nobody could report.
const notKnown = "not known"

// processRow is a process, or a role without one (Missing).
type processRow struct {
	Role, Place, Address, Version, Uptime, Heartbeat, Postgres string

	Level   health.Level
	Missing bool
}

func processRows(c health.Snapshot, f health.Fleet) []processRow {
	var rows []processRow
	for _, role := range []string{health.RoleAPI, health.RoleWorker, health.RoleScheduler, health.RoleDashboard} {
		switch {
		case f.Alive[role] > 0:
		case c.Unheard():
			rows = append(rows, processRow{Role: role, Heartbeat: notKnown, Level: health.Warn, Missing: true})
		default:
			rows = append(rows, processRow{Role: role, Heartbeat: "none is running", Level: health.Bad, Missing: true})
		}
		for _, p := range c.Processes {
			if p.Role == role {
				rows = append(rows, newProcessRow(p, c.Unheard()))
			}
		}
	}
	return rows
}

func newProcessRow(p health.Heartbeat, unheard bool) processRow {
	row := processRow{
		Role: p.Role, Place: fmt.Sprintf("%s · %d", p.Host, p.PID), Address: p.Address, Version: p.Version,
		Uptime: health.Age(health.Milliseconds(p.Uptime) + p.Age), Postgres: p.Postgres,
		Heartbeat: health.Age(p.Age) + " ago", Level: health.Good,
	}
	if !p.Alive() {
		row.Level, row.Heartbeat, row.Uptime, row.Postgres = health.Bad, "gone for "+health.Age(p.Age), "–", ""
		if unheard {
			row.Level, row.Heartbeat = health.Warn, "silent for "+health.Age(p.Age)
		}
	}
	return row
}

func postgresFacts(c health.Snapshot, f health.Fleet) facts {
	workers := f.Up + f.Down
	out := facts{Title: "Postgres", Level: health.Good, Word: "up"}
	switch {
	case workers == 0 && c.Unheard():
		out.Level, out.Word = health.Warn, notKnown
	case workers == 0:
		out.Level, out.Word = health.Warn, "not checked"
	case f.Up == 0:
		out.Level, out.Word = health.Bad, "down"
	case f.Down > 0:
		out.Level, out.Word = health.Warn, "up for some"
	}
	since := "–"
	if f.PostgresFor > 0 {
		since = health.Age(f.PostgresFor)
		if f.Up == 0 && !f.Turned {
			since = "at least " + since
		}
	}
	reached, rows := fmt.Sprintf("%d of %d workers", f.Up, workers), health.Rate(c.Rows)+"/s"
	if workers == 0 && c.Unheard() {
		reached, rows = "–", "–"
	}
	out.Pairs = [][2]string{{"For", since}, {"Reached by", reached}, {"Rows written", rows}}
	return out
}

func redisFacts(c health.Snapshot) facts {
	r := c.Redis
	out := facts{Title: "Redis", Level: health.Good, Word: "up"}
	switch {
	case c.Failed > 0 && c.Denial != "":
		out.Level, out.Word = health.Bad, "does not serve"
	case c.Failed > 0:
		out.Level, out.Word = health.Bad, "cannot be reached"
	case c.Away > 0:
		out.Level, out.Word = health.Bad, "partly away"
	case c.Refusal != "":
		out.Level, out.Word = health.Bad, "refuses writes"
	}
	limit := "no limit is set"
	if r.Limit > 0 {
		limit = fmt.Sprintf("%s (%.0f%% used)", size(r.Limit), 100*r.Full())
	}
	aof := "off"
	switch {
	case r.AOFFailing:
		aof = "failing"
	case r.Rewriting:
		aof = "on, being rewritten"
	case r.AOF:
		aof = "on"
	}
	if !r.Known {
		out.Pairs = [][2]string{{"Version", "not known yet"}}
		return out
	}
	version := r.Version + ", " + r.Role
	if r.Nodes > 0 {
		version += ", " + health.Count(int64(r.Nodes), "master answers", "masters answer")
	}
	out.Pairs = [][2]string{
		{"Version", version},
		{"Memory", size(r.Used)},
		{"Maxmemory", limit},
		{"Policy", r.Policy},
		{"Append-only file", aof},
		{"Replicas", health.Number(r.Replicas)},
		{"Commands", health.Rate(float64(r.Ops)) + "/s"},
		{"Up for", health.Age(r.Uptime)},
	}
	return out
}

func sweepFacts(c health.Snapshot, f health.Fleet) facts {
	out := facts{Title: "Sweeps", Level: health.Good, Word: "on time"}
	last := "–"
	if f.Swept >= 0 {
		last = health.Age(f.Swept) + " ago"
	}
	switch {
	case f.Alive[health.RoleScheduler] == 0 && c.Unheard():
		out.Level, out.Word = health.Warn, notKnown
	case f.Alive[health.RoleScheduler] == 0:
		out.Level, out.Word = health.Warn, "no scheduler"
	case f.Unswept():
		out.Level, out.Word = health.Warn, "late"
	}
	every, interval := "–", "–" // only a scheduler and a worker report them
	if f.Alive[health.RoleScheduler] > 0 {
		every = health.Age(f.SweepInterval)
	}
	if f.Alive[health.RoleWorker] > 0 {
		interval = health.Age(f.FlushInterval)
	}
	out.Pairs = [][2]string{{"Last one sent", last}, {"Every", every}, {"Flush interval", interval}}
	return out
}
