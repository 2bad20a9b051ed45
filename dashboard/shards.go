package dashboard

import (
	"fmt"
	"net/http"

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
	Shards  []shardRow
	Dirty   int64
	Dead    int64
	Even    float64 // what each shard would have if all had as much
	Failed  bool
	Away    int64 // shards that do not answer
	Live    string
	At      string
	Highest string // the shard that stands out, "" where none does
}

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
	var most int64 = -1
	for i, b := range f.Shards {
		row := shardRow{Name: counter.Shard(i).String(), ShardBacklog: b, Heat: heat(b.Dirty)}
		row.Title = fmt.Sprintf("Shard %s: %s, oldest %s, %s", row.Name, count(b.Dirty, "dirty key", "dirty keys"), age(b.Oldest),
			count(b.Dead, "dead letter", "dead letters"))
		if b.Unknown {
			row.Title = "Shard " + row.Name + ": does not answer"
		}
		if b.Dirty > most {
			most, d.Highest = b.Dirty, row.Name
		}
		d.Shards = append(d.Shards, row)
	}
	if answer := int64(len(d.Shards)) - d.Away; answer > 0 {
		d.Even = float64(d.Dirty) / float64(answer)
	}
	if float64(most) <= 2*d.Even+10 { // chance alone does as much
		d.Highest = ""
	}
	return d
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
