package dashboard

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/health"
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
	Even   float64 // mean number of dirty keys in a shard
	Failed bool    // Redis does not answer
	Away   int64   // number of shards that do not answer
	Live   string  // the page's name for live.js
	At     string
	Out    []outlier
}

// outlier is a shard that stands out, with the reason.
type outlier struct{ Name, Why string }

// shardRow is one shard.
type shardRow struct {
	cache.ShardBacklog

	Name  string
	Heat  int // 0 (no dirty keys) to 5
	Title string
}

// ServeHTTP answers 503 if Redis does not answer.
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
		row.Title = fmt.Sprintf("Shard %s: %s, oldest %s, %s", row.Name,
			health.Count(b.Dirty, "dirty key", "dirty keys"), health.Age(b.Oldest), health.Count(b.Dead, "dead letter", "dead letters"))
		if b.Unknown {
			row.Title = "Shard " + row.Name + ": does not answer"
		}
		d.Shards = append(d.Shards, row)
	}
	answer := slices.DeleteFunc(slices.Clone(d.Shards), func(row shardRow) bool { return row.Unknown })
	if len(answer) > 0 {
		d.Even = float64(d.Dirty) / float64(len(answer))
		d.Out = append(fullest(answer, d.Even), oldest(answer, f.Snapshot)...)
	}
	return d
}

// fullest returns the shard with the most dirty keys, if it has far more than the mean.
func fullest(rows []shardRow, even float64) []outlier {
	most := slices.MaxFunc(rows, func(x, y shardRow) int { return cmp.Compare(x.Dirty, y.Dirty) })
	if float64(most.Dirty) <= 2*even+10 { // within random variation
		return nil
	}
	return []outlier{{most.Name, "has the most"}}
}

// oldest returns the shard with the oldest dirty key, if that key is much older than in the other shards and older than a flush explains.
// A few stuck keys are visible only by their age. Shards without dirty keys are compared only while workers flush: otherwise they are
// empty because nobody writes to them.
func oldest(rows []shardRow, s health.Snapshot) []outlier {
	fleet, flushing := s.Fleet(), s.Flushes()
	var ages []time.Duration
	for _, row := range rows {
		if row.Dirty > 0 || flushing {
			ages = append(ages, row.Oldest)
		}
	}
	if len(ages) == 0 {
		return nil
	}
	slices.Sort(ages)
	first := slices.MaxFunc(rows, func(x, y shardRow) int { return cmp.Compare(x.Oldest, y.Oldest) })
	if first.Oldest <= 2*ages[len(ages)/2]+fleet.Late() { // the median, since several shards may be stuck
		return nil
	}
	return []outlier{{first.Name, "has waited longest, for " + health.Age(first.Oldest)}}
}

// parts implements livePage.
func (*shardsPage) parts() []string { return []string{"summary", "heat", "rows", "at"} }

// heat returns the number of decimal digits, at most 5.
func heat(dirty int64) int {
	steps := 0
	for n := dirty; n > 0 && steps < 5; n /= 10 {
		steps++
	}
	return steps
}
