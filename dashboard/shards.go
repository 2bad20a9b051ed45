package dashboard

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// shardsPage is /shards.
type shardsPage struct {
	*page

	watch *watch
}

// shardsData is what shards.html shows.
type shardsData struct {
	Shards []shardRow
	Dirty  int64
	Dead   int64
	Even   float64 // what each shard would have if all had as much
	Failed bool
	Away   int64 // shards that do not answer
	Live   string
	At     string
	Out    []outlier
}

// outlier is a shard that stands out, and by what.
type outlier struct{ Name, Why string }

// shardRow is one shard.
type shardRow struct {
	cache.ShardBacklog

	Name  string
	Heat  int // 0, without dirty keys, to 5
	Title string
}

// ServeHTTP answers with 503 when Redis does not answer.
func (p *shardsPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := p.watch.first(r.Context())
	status := http.StatusOK
	if f.Failed > 0 {
		status = http.StatusServiceUnavailable
	}
	p.render(w, r, status, p.data(f))
}

// data implements livePage.
func (*shardsPage) data(f *frame) any {
	d := shardsData{Dirty: f.Dirty, Dead: f.Dead, Failed: f.Failed > 0, Away: f.Away, Live: "shards", At: clock(f)}
	for i, b := range f.Shards {
		row := shardRow{Name: counter.Shard(i).String(), ShardBacklog: b, Heat: heat(b.Dirty)}
		row.Title = fmt.Sprintf("Shard %s: %s, oldest %s, %s", row.Name, count(b.Dirty, "dirty key", "dirty keys"), age(b.Oldest),
			count(b.Dead, "dead letter", "dead letters"))
		if b.Unknown {
			row.Title = "Shard " + row.Name + ": does not answer"
		}
		d.Shards = append(d.Shards, row)
	}
	answer := slices.DeleteFunc(slices.Clone(d.Shards), func(row shardRow) bool { return row.Unknown })
	if len(answer) > 0 {
		d.Even = float64(d.Dirty) / float64(len(answer))
		d.Out = outliers(answer, d.Even)
	}
	return d
}

// outliers are the shards that stand out: the one with the most keys, and the one whose oldest key has waited longest, each if it is
// far from the others. A few keys that are stuck show by their age only.
func outliers(rows []shardRow, even float64) []outlier {
	var found []outlier
	most := slices.MaxFunc(rows, func(x, y shardRow) int { return cmp.Compare(x.Dirty, y.Dirty) })
	if float64(most.Dirty) > 2*even+10 { // chance alone does less
		found = append(found, outlier{most.Name, "has the most"})
	}
	ages := make([]time.Duration, len(rows))
	for i, row := range rows {
		ages[i] = row.Oldest
	}
	slices.Sort(ages)
	oldest := slices.MaxFunc(rows, func(x, y shardRow) int { return cmp.Compare(x.Oldest, y.Oldest) })
	if oldest.Oldest > 2*ages[len(ages)/2]+lateAfter { // the median: several may be stuck
		found = append(found, outlier{oldest.Name, "has waited longest, for " + age(oldest.Oldest)})
	}
	return found
}

// parts implements livePage.
func (*shardsPage) parts() []string { return []string{"summary", "heat", "rows", "at"} }

// heat is the number of digits, up to five: a step is ten times as much.
func heat(dirty int64) int {
	steps := 0
	for n := dirty; n > 0 && steps < 5; n /= 10 {
		steps++
	}
	return steps
}
