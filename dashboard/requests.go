package dashboard

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/health"
)

const (
	requestsPath = "/requests"

	// maxKeyRows bounds the table of API keys. Each api names 20 at most, but each may name others.
	maxKeyRows = 50
)

// requestsPage is /requests: who sends requests to the apis, and what the apis reject.
type requestsPage struct {
	*page

	watch   *watch
	explain func(code string) (title, promise string)
}

// requestsData is what requests.html shows.
type requestsData struct {
	Keys       []apiKeyRow
	Rejections []rejectionRow
	Requests   float64 // 1/s
	Rejected   float64 // 1/s
	Starting   bool
	Failed     bool  // Redis does not answer
	Unknown    bool  // the apis' heartbeats are missing
	Apis       int   // number of running apis
	Old        int64 // those of a version that does not count requests by key
	Live       string
	At         string
}

// apiKeyRow is one API key: requests per second, and its share of all.
type apiKeyRow struct {
	Name     string // "" without a known key
	Others   bool   // the row sums up all further keys
	Requests float64
	Share    string
}

// rejectionRow is one code of a problem.
type rejectionRow struct {
	Code, Title, Promise string

	PerSecond float64
	Total     int64 // since the running apis started
}

// ServeHTTP answers 503 if Redis does not answer.
func (p *requestsPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.watch.first(r.Context())
	status := http.StatusOK
	if f.Failed > 0 {
		status = http.StatusServiceUnavailable
	}
	p.render(w, r, status, p.data(f))
}

// data implements livePage.
func (p *requestsPage) data(f *frame) any {
	d := requestsData{Starting: f.Starting, Failed: f.Failed > 0, Live: "requests", At: clock(f)}
	totals := make(map[string]int64)
	for _, one := range f.Processes {
		if one.Role != health.RoleAPI || !one.Alive() {
			continue
		}
		d.Apis++
		if one.Counts.Requests == nil {
			d.Old++
		}
		for code, n := range one.Counts.Rejected {
			totals[code] += n
		}
	}
	d.Unknown = d.Apis == 0 && f.Unheard()
	d.Keys, d.Requests = apiKeyRows(f.Traffic)
	for code, total := range totals {
		row := rejectionRow{Code: code, PerSecond: f.Traffic.Rejections[code], Total: total}
		if p.explain != nil {
			row.Title, row.Promise = p.explain(code)
		}
		d.Rejections = append(d.Rejections, row)
		d.Rejected += row.PerSecond
	}
	slices.SortFunc(d.Rejections, func(x, y rejectionRow) int {
		return cmp.Or(cmp.Compare(y.PerSecond, x.PerSecond), cmp.Compare(y.Total, x.Total), cmp.Compare(x.Code, y.Code))
	})
	return d
}

// apiKeyRows returns the keys with requests, those with the most first, and the sum of all requests per second.
func apiKeyRows(t health.Traffic) (rows []apiKeyRow, sum float64) {
	other := t.Other
	sum = other
	for _, name := range slices.Sorted(maps.Keys(t.Requests)) {
		if n := t.Requests[name]; n > 0 {
			rows = append(rows, apiKeyRow{Name: name, Requests: n})
			sum += n
		}
	}
	slices.SortStableFunc(rows, func(x, y apiKeyRow) int { return cmp.Compare(y.Requests, x.Requests) })
	for len(rows) > maxKeyRows {
		other += rows[len(rows)-1].Requests
		rows = rows[:len(rows)-1]
	}
	if other > 0 {
		rows = append(rows, apiKeyRow{Others: true, Requests: other})
	}
	for i := range rows {
		rows[i].Share = percent(rows[i].Requests / sum)
	}
	return rows, sum
}

// percent writes a share of 0 to 1: 0.4 %, 12 %.
func percent(share float64) string {
	switch {
	case share < 0.001:
		return "<0.1 %"
	case share < 0.095:
		return strconv.FormatFloat(100*share, 'f', 1, 64) + " %"
	}
	return strconv.FormatFloat(100*share, 'f', 0, 64) + " %"
}

// parts implements livePage.
func (*requestsPage) parts() []string { return []string{"summary", "keys", "rejections", "at"} }
