package dashboard

import (
	"net/http"
	"time"

	"github.com/afterwrite/afterwrite/internal/health"
)

// overview is what overview.html shows.
type overview struct {
	State     health.Report
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
	Level health.Level // "" if the number alone is neither good nor bad
}

// overviewPage is /.
type overviewPage struct {
	*page

	watch *watch
}

// ServeHTTP answers 503, with the page, if Redis does not answer.
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
	fleet := f.Fleet()
	return overview{
		State: f.Judge(), Tiles: tiles(f.Snapshot, fleet), Charts: charts(f.Snapshot),
		Processes: processRows(f.Snapshot, fleet), Live: "overview",
		Facts: []facts{postgresFacts(f.Snapshot, fleet), redisFacts(f.Snapshot), sweepFacts(f.Snapshot, fleet)},
		At:    clock(f),
	}
}

// clock is the time of the sample, "" if there is none yet.
func clock(f *frame) string {
	if f.At == 0 {
		return ""
	}
	return time.UnixMilli(f.At).UTC().Format(time.TimeOnly)
}

// parts implements livePage.
func (*overviewPage) parts() []string { return []string{"state", "tiles", "processes", "facts", "at"} }

func tiles(c health.Snapshot, f health.Fleet) []tile {
	dead, dirty := health.Good, "counters with writes that Postgres lacks"
	if c.Dead > 0 {
		dead = health.Warn
	}
	if f.MaxDirty > 0 {
		dirty = "limit " + health.Number(f.MaxDirty) + ", dead letters included" // backpressure counts both
	}
	if c.Away > 0 {
		dirty = "without " + health.Count(c.Away, "shard that does", "shards that do") + " not answer"
	}
	coalesced := tile{Label: "Coalescing", Value: "–", Note: "nothing was flushed in the last 10 s"}
	if ratio := c.Coalescing(); ratio > 0 && c.LagP50 >= 0 { // in an outage the ratio has no meaning
		coalesced = tile{Label: "Coalescing", Value: health.Rate(ratio), Unit: "×", Note: "writes for each row, in the last minute"}
	}
	lag := tile{Label: "Sync lag", Value: "–", Note: "nothing was flushed in the last 10 s"}
	if c.LagP50 >= 0 && c.At > 0 {
		lag = tile{
			Label: "Sync lag", Value: lagText(c, c.LagP50),
			Note: "half of all; 99 of 100 within " + health.Age(health.Milliseconds(c.LagP99)),
		}
		if beyond(c, c.LagP99) {
			lag.Note = "half of all; the slowest of 100 " + lagText(c, c.LagP99)
		}
	}
	writes := tile{Label: "Writes", Value: health.Rate(c.Writes), Unit: "/s", Note: "accepted by the api"}
	rejected := tile{
		Label: "Rejected", Value: health.Rate(c.Rejected), Unit: "/s", Note: "answered 503, 504 or 500", Level: failureLevel(c.Failing()),
	}
	if f.Alive[health.RoleAPI] == 0 && c.Unheard() {
		writes = tile{Label: "Writes", Value: "–", Note: "the apis could not say"}
		rejected = tile{Label: "Rejected", Value: "–", Note: "the apis could not say"}
	}
	rows := tile{Label: "Rows", Value: health.Rate(c.Rows), Unit: "/s", Note: "written to Postgres"}
	if f.Alive[health.RoleWorker] == 0 && c.Unheard() {
		rows = tile{Label: "Rows", Value: "–", Note: "the workers could not say"}
		coalesced = tile{Label: "Coalescing", Value: "–", Note: "the workers could not say"}
		lag = tile{Label: "Sync lag", Value: "–", Note: "the workers could not say"}
	}
	return []tile{
		writes,
		rows,
		coalesced,
		{Label: "Dirty keys", Value: health.Number(c.Dirty), Note: dirty},
		{Label: "Oldest unsynced", Value: health.Age(health.Milliseconds(c.Oldest)), Note: "since its first write"},
		lag,
		{Label: "Dead letters", Value: health.Number(c.Dead), Note: "rows that Postgres refuses for good", Level: dead},
		rejected,
	}
}

// beyond reports whether a percentile of the sync lag is in the histogram's last bucket, so that it may be larger.
func beyond(c health.Snapshot, ms int64) bool { return c.LagBound > 0 && ms >= c.LagBound }

func lagText(c health.Snapshot, ms int64) string {
	if beyond(c, ms) {
		return "over " + health.Age(health.Milliseconds(ms))
	}
	return health.Age(health.Milliseconds(ms))
}

// failureLevel judges a number of failed requests per second. One in ten seconds does not mean that the system fails.
func failureLevel(perSecond float64) health.Level {
	switch {
	case perSecond >= 1:
		return health.Bad
	case perSecond > 0:
		return health.Warn
	default:
		return health.Good
	}
}
