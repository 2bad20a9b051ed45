package dashboard

import (
	"fmt"
	"net/http"
	"time"

	"github.com/afterwrite/afterwrite/internal/pulse"
)

// overview is what overview.html shows.
type overview struct {
	State     state
	Tiles     []tile
	Charts    []chart
	Processes []processRow
	Facts     []facts
	At        string
	Live      string // the page's name for live.js
}

// tile is one number.
type tile struct {
	Label string
	Value string
	Unit  string
	Note  string
	Level string // "" where the number alone says nothing
}

// facts are what is known of one part.
type facts struct {
	Title string
	Pairs [][2]string
	Level string // with Word, in a pill
	Word  string
}

// processRow is a process, or that there is none of a role.
type processRow struct {
	Role, Place, Address, Version, Uptime, Beat, Postgres string

	Level   string
	Missing bool
}

// overviewPage is /.
type overviewPage struct {
	*page

	watch *watch
}

// ServeHTTP answers with 503 when Redis does not answer: the page itself is shown, and says so.
func (p *overviewPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.watch.first(r.Context())
	status := http.StatusOK
	if f.Failed > 0 {
		status = http.StatusServiceUnavailable
	}
	p.render(w, r, status, p.data(f))
}

// data implements livePage.
func (p *overviewPage) data(f *frame) any {
	fleet := f.fleet()
	return overview{
		State: judge(f.condition), Tiles: tiles(f.condition, fleet), Charts: charts(f.condition),
		Processes: processRows(f.condition, fleet), Live: "overview",
		Facts: []facts{postgresFacts(f.condition, fleet), redisFacts(f.condition), sweepFacts(f.condition, fleet)},
		At:    clock(f),
	}
}

// clock is the time of the sample, "" where there is none yet.
func clock(f *frame) string {
	if f.At == 0 {
		return ""
	}
	return time.UnixMilli(f.At).UTC().Format(time.TimeOnly)
}

// parts implements livePage: the templates that are made anew for each frame.
func (*overviewPage) parts() []string { return []string{"state", "tiles", "processes", "facts", "at"} }

func tiles(c condition, f fleet) []tile {
	dead, dirty := levelGood, "counters that Postgres has in an older state"
	if c.Dead > 0 {
		dead = levelWarn
	}
	if f.MaxDirty > 0 {
		dirty = "of " + number(f.MaxDirty) + " that may be, dead letters included" // backpressure counts both
	}
	if c.Away > 0 {
		dirty = "without " + count(c.Away, "shard that does", "shards that do") + " not answer"
	}
	coalesced := tile{Label: "Coalescing", Value: "–", Note: "nothing was flushed in the last 10 s"}
	if ratio := c.coalescing(); ratio > 0 && c.LagP50 >= 0 { // in an outage it would grow, and say nothing
		coalesced = tile{Label: "Coalescing", Value: rate(ratio), Unit: "×", Note: "writes for each row, in the last minute"}
	}
	lag := tile{Label: "Sync lag", Value: "–", Note: "nothing was flushed in the last 10 s"}
	if c.LagP50 >= 0 && c.At > 0 {
		lag = tile{Label: "Sync lag", Value: c.lag(c.LagP50), Note: "half of all; 99 of 100 within " + age(duration(c.LagP99))}
		if c.beyond(c.LagP99) {
			lag.Note = "half of all; the slowest of 100 " + c.lag(c.LagP99)
		}
	}
	writes := tile{Label: "Writes", Value: rate(c.Writes), Unit: "/s", Note: "accepted by the api"}
	rejected := tile{
		Label: "Rejected", Value: rate(c.Rejected), Unit: "/s", Note: "answered 503, 504 or 500", Level: rejectedLevel(c.rejected()),
	}
	if f.Alive[pulse.RoleAPI] == 0 && c.unheard() {
		writes = tile{Label: "Writes", Value: "–", Note: "the apis could not say"}
		rejected = tile{Label: "Rejected", Value: "–", Note: "the apis could not say"}
	}
	rows := tile{Label: "Rows", Value: rate(c.Rows), Unit: "/s", Note: "taken by Postgres"}
	if f.Alive[pulse.RoleWorker] == 0 && c.unheard() {
		rows = tile{Label: "Rows", Value: "–", Note: "the workers could not say"}
		coalesced = tile{Label: "Coalescing", Value: "–", Note: "the workers could not say"}
		lag = tile{Label: "Sync lag", Value: "–", Note: "the workers could not say"}
	}
	return []tile{
		writes,
		rows,
		coalesced,
		{Label: "Dirty keys", Value: number(c.Dirty), Note: dirty},
		{Label: "Oldest unsynced", Value: age(duration(c.Oldest)), Note: "since its first write"},
		lag,
		{Label: "Dead letters", Value: number(c.Dead), Note: "rows that Postgres refuses for good", Level: dead},
		rejected,
	}
}

// beyond says whether a percentile of the sync lag is of those that are not told apart.
func (c condition) beyond(ms int64) bool { return c.LagBound > 0 && ms >= c.LagBound }

func (c condition) lag(ms int64) string {
	if c.beyond(ms) {
		return "over " + age(duration(ms))
	}
	return age(duration(ms))
}

func processRows(c condition, f fleet) []processRow {
	var rows []processRow
	for _, role := range []string{pulse.RoleAPI, pulse.RoleWorker, pulse.RoleScheduler, pulse.RoleDashboard} {
		switch {
		case f.Alive[role] > 0:
		case c.unheard():
			rows = append(rows, processRow{Role: role, Beat: "not known", Level: levelWarn, Missing: true})
		default:
			rows = append(rows, processRow{Role: role, Beat: "none is running", Level: levelBad, Missing: true})
		}
		for _, p := range c.Processes {
			if p.Role == role {
				rows = append(rows, newProcessRow(p, c.unheard()))
			}
		}
	}
	return rows
}

func newProcessRow(p pulse.Pulse, unheard bool) processRow {
	row := processRow{
		Role: p.Role, Place: fmt.Sprintf("%s · %d", p.Host, p.PID), Address: p.Address, Version: p.Version,
		Uptime: age(duration(p.Uptime) + p.Age), Postgres: p.Postgres, Beat: age(p.Age) + " ago", Level: levelGood,
	}
	if !p.Alive() {
		row.Level, row.Beat, row.Uptime, row.Postgres = levelBad, "gone for "+age(p.Age), "–", ""
		if unheard {
			row.Level, row.Beat = levelWarn, "silent for "+age(p.Age)
		}
	}
	return row
}

func postgresFacts(c condition, f fleet) facts {
	workers := f.Up + f.Down
	out := facts{Title: "Postgres", Level: levelGood, Word: "up"}
	switch {
	case workers == 0 && c.unheard():
		out.Level, out.Word = levelWarn, "not known"
	case workers == 0:
		out.Level, out.Word = levelWarn, "nobody looks"
	case f.Up == 0:
		out.Level, out.Word = levelBad, "down"
	case f.Down > 0:
		out.Level, out.Word = levelWarn, "up for some"
	}
	since := "–"
	if f.PostgresFor > 0 {
		since = age(f.PostgresFor)
		if f.Up == 0 && !f.Turned {
			since = "at least " + since
		}
	}
	reached, rows := fmt.Sprintf("%d of %d workers", f.Up, workers), rate(c.Rows)+"/s"
	if workers == 0 && c.unheard() {
		reached, rows = "–", "–"
	}
	out.Pairs = [][2]string{{"For", since}, {"Reached by", reached}, {"Rows taken", rows}}
	return out
}

func redisFacts(c condition) facts {
	r := c.Redis
	out := facts{Title: "Redis", Level: levelGood, Word: "up"}
	switch {
	case c.Failed > 0 && c.Denial != "":
		out.Level, out.Word = levelBad, "does not serve"
	case c.Failed > 0:
		out.Level, out.Word = levelBad, "cannot be reached"
	case c.Away > 0:
		out.Level, out.Word = levelBad, "partly away"
	case c.Refusal != "":
		out.Level, out.Word = levelBad, "refuses writes"
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
		version += ", " + count(int64(r.Nodes), "master answers", "masters answer")
	}
	out.Pairs = [][2]string{
		{"Version", version},
		{"Memory", size(r.Used)},
		{"Maxmemory", limit},
		{"Policy", r.Policy},
		{"Append-only file", aof},
		{"Replicas", number(r.Replicas)},
		{"Commands", rate(float64(r.Ops)) + "/s"},
		{"Up for", age(r.Uptime)},
	}
	return out
}

func sweepFacts(c condition, f fleet) facts {
	out := facts{Title: "Sweeps", Level: levelGood, Word: "on time"}
	last := "–"
	if f.Swept >= 0 {
		last = age(f.Swept) + " ago"
	}
	switch {
	case f.Alive[pulse.RoleScheduler] == 0 && c.unheard():
		out.Level, out.Word = levelWarn, "not known"
	case f.Alive[pulse.RoleScheduler] == 0:
		out.Level, out.Word = levelWarn, "no scheduler"
	case f.unswept():
		out.Level, out.Word = levelWarn, "late"
	}
	every, interval := "–", "–" // nobody says how long they are
	if f.Alive[pulse.RoleScheduler] > 0 {
		every = age(f.SweepInterval)
	}
	if f.Alive[pulse.RoleWorker] > 0 {
		interval = age(f.FlushInterval)
	}
	out.Pairs = [][2]string{{"Last one sent", last}, {"Every", every}, {"Flush interval", interval}}
	return out
}
