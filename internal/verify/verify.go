package verify

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// settleAfter is how long a difference is left alone before it is looked at again.
	settleAfter = 200 * time.Millisecond
	// maxLooks bounds the looks at an entry that is another one each time.
	maxLooks = 4
	// maxSuspects bounds what waits for another look; past it the scan waits.
	maxSuspects = 10_000
)

// Store is the part of *store.Store that is needed.
type Store interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
}

// Options say what to compare, and how.
type Options struct {
	Cache    *cache.Cache
	Store    Store
	Repair   bool
	Rate     int          // keys a second at most; 0: no bound
	MaxDirty int64        // of the api: a repair makes no more keys dirty while half as many are
	Examples int          // how many differences are kept in the report
	Progress func(Report) // called after each page; nil: nobody is told
}

// Report is what Run found.
type Report struct {
	Complete    bool            `json:"complete"` // false: it ended early, and counts what was seen until then
	Entries     int64           `json:"entries"`  // looked at
	Counts      map[Class]int64 `json:"counts"`
	Mended      map[Class]int64 `json:"mended"`
	Differences int64           `json:"differences"` // those that were mended included
	Unmended    int64           `json:"unmended"`
	Held        int64           `json:"held"` // of Unmended: not put into an epoch, since too many keys are dirty already
	Examples    []Difference    `json:"examples"`
}

// Difference is one entry that is not what Postgres has.
type Difference struct {
	Key      string `json:"key"`
	Class    Class  `json:"class"`
	Redis    *State `json:"redis"`    // null: none, or not an entry
	Postgres *State `json:"postgres"` // null: no row
	Mended   bool   `json:"mended"`
}

// State is what one side has.
type State struct {
	Value   int64 `json:"value"`
	Version int64 `json:"version"`
	Deleted bool  `json:"deleted"`
}

func (s *State) String() string {
	switch {
	case s == nil:
		return "none"
	case s.Deleted:
		return fmt.Sprintf("deleted (version %d)", s.Version)
	}
	return fmt.Sprintf("%d (version %d)", s.Value, s.Version)
}

// run is one comparison.
type run struct {
	Options

	report   Report
	limiter  *rate.Limiter
	suspects []suspect
}

// suspect is an entry that differed when it was seen.
type suspect struct {
	seen  cache.Inspected
	due   time.Time
	looks int
}

// finding is a suspect that is a difference.
type finding struct {
	class Class
	seen  cache.Inspected
	row   *counter.Row
}

// Run compares every entry, and with Repair mends what can be. It blocks until all entries were seen, in bounded calls; the
// report counts also when there is an error.
func Run(ctx context.Context, o Options) (Report, error) {
	r := &run{Options: o, limiter: rate.NewLimiter(rate.Inf, cache.ScanPage)}
	if o.Rate > 0 {
		r.limiter.SetLimit(rate.Limit(o.Rate))
	}
	r.report.Counts, r.report.Mended, r.report.Examples = map[Class]int64{}, map[Class]int64{}, []Difference{}
	err := r.entries(ctx)
	if err == nil {
		err = r.members(ctx)
	}
	if err == nil {
		err = r.settle(ctx, 0)
	}
	r.report.Complete = err == nil
	return r.report, err
}

func (r *run) entries(ctx context.Context) error {
	return r.Cache.EachEntry(ctx, func(keys []counter.Key, strays []string) error {
		for _, name := range strays {
			r.report.Entries++
			r.differs(Difference{Key: name, Class: Foreign}, false)
		}
		found, err := r.compare(ctx, keys)
		if err != nil {
			return err
		}
		r.report.Entries += int64(len(keys))
		for _, f := range found {
			r.judge(f, 1)
		}
		if err := r.settle(ctx, maxSuspects); err != nil {
			return err
		}
		if r.Progress != nil {
			r.Progress(r.report)
		}
		return nil
	})
}

// members finds keys that are in an epoch, or set aside, and have no entry. A key may be in several places.
func (r *run) members(ctx context.Context) error {
	for s := range r.Cache.Shards() {
		orphans := make(map[counter.Key]bool)
		err := r.Cache.EachMember(ctx, counter.Shard(s), func(keys []counter.Key) error {
			if err := r.limiter.WaitN(ctx, len(keys)); err != nil {
				return err
			}
			seen, err := r.Cache.Inspect(ctx, keys)
			for _, e := range seen {
				if e.Missing && e.Dirty && !orphans[e.Key] {
					orphans[e.Key] = true
					r.judge(finding{class: Orphan, seen: e}, 1)
				}
			}
			if err != nil {
				return err
			}
			return r.settle(ctx, maxSuspects)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// compare looks at entries and then reads their rows.
func (r *run) compare(ctx context.Context, keys []counter.Key) ([]finding, error) {
	if err := r.limiter.WaitN(ctx, len(keys)); err != nil {
		return nil, err
	}
	seen, err := r.Cache.Inspect(ctx, keys)
	if err != nil {
		return nil, err
	}
	rows, err := r.Store.Read(ctx, keys)
	if err != nil {
		return nil, err
	}
	found := make([]finding, len(seen))
	for i, e := range seen {
		row, ok := rows[e.Key]
		found[i] = finding{class: compare(e, row, ok), seen: e}
		if ok {
			found[i].row = &row
		}
	}
	return found, nil
}

// judge counts what is no difference, and keeps what may be one for another look.
func (r *run) judge(f finding, looks int) {
	switch {
	case f.class == gone:
	case !f.class.difference():
		r.report.Counts[f.class]++
	case looks >= maxLooks:
		r.report.Counts[Unsettled]++
	default:
		r.suspects = append(r.suspects, suspect{seen: f.seen, due: time.Now().Add(settleAfter), looks: looks})
	}
}

// settle looks again at suspects whose time has come, and waits for it until no more than most are left.
func (r *run) settle(ctx context.Context, most int) error {
	for len(r.suspects) > 0 {
		if wait := time.Until(r.suspects[0].due); wait > 0 {
			if len(r.suspects) <= most {
				return nil
			}
			if err := pause(ctx, wait); err != nil {
				return err
			}
		}
		n := min(len(r.suspects), cache.ScanPage)
		for now := time.Now(); n > 1 && r.suspects[n-1].due.After(now); {
			n--
		}
		again := r.suspects[:n:n]
		r.suspects = r.suspects[n:]
		if err := r.again(ctx, again); err != nil {
			return err
		}
	}
	return nil
}

// again looks once more. What is still the same is a difference.
func (r *run) again(ctx context.Context, suspects []suspect) error {
	keys := make([]counter.Key, len(suspects))
	for i, s := range suspects {
		keys[i] = s.seen.Key
	}
	found, err := r.compare(ctx, keys)
	if err != nil {
		return err
	}
	var confirmed []finding
	for i, f := range found {
		if f.class.difference() && f.seen == suspects[i].seen {
			confirmed = append(confirmed, f)
		} else {
			r.judge(f, suspects[i].looks+1)
		}
	}
	return r.confirm(ctx, confirmed)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
