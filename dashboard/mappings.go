package dashboard

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/mapping"
)

const mappingsPath = "/mappings"

// mappingsPage is /mappings: which counters land in columns of the user's own tables, and whether they do.
type mappingsPage struct {
	*page

	watch    *watch
	mappings *mapping.Mappings
	dead     *mappedDead
}

// mappingsData is what mappings.html shows.
type mappingsData struct {
	Rows     []mappingRow
	None     bool   // neither this process nor a worker has mappings
	Differs  string // why the workers may do something else than the table says, or ""
	Partial  bool   // there may be more dead letters
	Starting bool
	Failed   bool // Redis does not answer
	Unknown  bool // the workers' heartbeats are missing
	Workers  int  // number of running workers
	Live     string
	At       string
}

// mappingRow is one mapping.
type mappingRow struct {
	Name, Keys, Column string // Keys and Column are "" if this process does not have the mapping
	Missing            string // what happens if there is no row
	State              string // a word, and its level
	Level              health.Level
	Error              string // why its table cannot be written, or ""

	Counts    health.MappingCounts
	Counted   bool // a running worker has the mapping
	PerSecond float64
	Dead      int64
	DeadKnown bool
}

// missingTexts say what happens if the table has no row for a counter.
var missingTexts = map[mapping.Missing]string{
	mapping.Ignore: "ignore it", mapping.Insert: "insert it", mapping.Dead: "dead letter",
}

// ServeHTTP answers 503 if Redis does not answer.
func (p *mappingsPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.watch.first(r.Context())
	status := http.StatusOK
	switch {
	case f.Failed > 0:
		status = http.StatusServiceUnavailable
	case f.Dead > 0 && p.mappings != nil:
		ctx, cancel := context.WithTimeout(r.Context(), health.SampleEvery)
		defer cancel()
		p.dead.fresh(ctx)
	}
	p.render(w, r, status, p.data(f))
}

// data implements livePage.
func (p *mappingsPage) data(f *frame) any {
	d := mappingsData{Starting: f.Starting, Failed: f.Failed > 0, Live: "mappings", At: clock(f)}
	d.Workers = f.Fleet().Alive[health.RoleWorker]
	d.Unknown = d.Workers == 0 && f.Unheard()
	counts, broken := f.WorkerMappings(), f.BrokenMappings()
	var dead deadCount
	if f.Dead > 0 && p.mappings != nil {
		dead, _ = p.dead.latest()
	}
	for _, m := range p.mappings.All() {
		row := mappingRow{
			Name: m.Name, Keys: m.Pattern.String(), Column: m.ColumnName(), Missing: missingTexts[m.Missing],
			Dead: dead.letters[m.Name], DeadKnown: !f.Starting && (f.Dead == 0 || !dead.at.IsZero()),
		}
		d.Rows = append(d.Rows, row)
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if p.mappings.Named(name) == nil {
			d.Rows = append(d.Rows, mappingRow{Name: name})
		}
	}
	for i := range d.Rows {
		row := &d.Rows[i]
		row.Counts, row.Counted = counts[row.Name]
		row.PerSecond = f.Traffic.Mapped[row.Name]
		row.Error = broken[row.Name]
		row.State, row.Level = row.state(d.Workers, d.Unknown || d.Starting)
	}
	d.Partial = dead.partial
	d.None = len(d.Rows) == 0 && !d.Starting && !d.Failed
	d.Differs = p.differs(f, counts)
	return d
}

// state returns a word for the state of a mapping, and its level.
func (r *mappingRow) state(workers int, unknown bool) (string, health.Level) {
	switch {
	case r.Error != "":
		return "broken", health.Bad
	case r.Keys == "":
		return "not in this dashboard's file", health.Warn
	case unknown:
		return notKnown, ""
	case workers == 0:
		return "no worker runs", health.Warn
	case !r.Counted:
		return "no worker has it", health.Warn
	}
	return "ok", health.Good
}

// differs says whether the running workers have other mappings than this process.
func (p *mappingsPage) differs(f *frame, counts map[string]health.MappingCounts) string {
	here := p.mappings.Digest()
	for _, one := range f.Processes {
		if one.Role != health.RoleWorker || !one.Alive() || one.Settings.Mappings == here {
			continue
		}
		switch {
		case here == "":
			return "This dashboard has no mappings, but workers have some."
		case one.Settings.Mappings == "":
			return "A worker has no mappings, so it writes no columns."
		case p.sameNames(counts):
			return "A worker has another file than this dashboard: mappings with the same names differ in it."
		}
		return "A worker has another file than this dashboard."
	}
	return ""
}

// sameNames reports whether the workers' mappings have the names of this process's.
func (p *mappingsPage) sameNames(counts map[string]health.MappingCounts) bool {
	for _, m := range p.mappings.All() {
		if _, ok := counts[m.Name]; !ok {
			return false
		}
	}
	return len(counts) == len(p.mappings.All())
}

// parts implements livePage.
func (*mappingsPage) parts() []string { return []string{"summary", "mappings", "at"} }
