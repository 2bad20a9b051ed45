package dashboard

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
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
		d.Out = append(fullest(answer, d.Even), oldest(answer, f.condition)...)
	}
	return d
}

// fullest is the shard with the most keys, if it has far more than the others.
func fullest(rows []shardRow, even float64) []outlier {
	most := slices.MaxFunc(rows, func(x, y shardRow) int { return cmp.Compare(x.Dirty, y.Dirty) })
	if float64(most.Dirty) <= 2*even+10 { // chance alone does as much
		return nil
	}
	return []outlier{{most.Name, "has the most"}}
}

// oldest is the shard whose oldest key has waited longest, if that is far longer than in the others, and than a flush takes to
// come: a few keys that are stuck show by their age only. A shard without dirty keys is one of the others only while workers
// flush. Else nobody wrote to it, and what waits in the rest is not stuck for that.
func oldest(rows []shardRow, c condition) []outlier {
	f := c.fleet()
	flushing := f.Up > 0 && f.Flushing >= trendWindow && !c.paused(tasks.QueueFlush)
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
	if first.Oldest <= 2*ages[len(ages)/2]+f.FlushInterval+lateAfter { // the median: several may be stuck
		return nil
	}
	return []outlier{{first.Name, "has waited longest, for " + age(first.Oldest)}}
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
