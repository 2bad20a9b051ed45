package operate

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// settleTime is the pause before a difference is read again.
	settleTime = 200 * time.Millisecond
	// maxReads bounds the reads of an entry whose difference changes each time.
	maxReads = 4
	// maxSuspects bounds the entries that wait to be read again. Beyond it the scan waits.
	maxSuspects = 10_000
)

// VerifyOptions are the options of Verify.
type VerifyOptions struct {
	Repair   bool
	History  bool         // also replay the records of counters that have a history
	Rate     int          // keys, or records, a second at most; 0: no limit
	MaxDirty int64        // the api's AFTERWRITE_MAX_DIRTY; a repair makes no key dirty beyond half of it
	Examples int          // maximum number of differences in the report
	Progress func(Report) // called after each page; may be nil
}

// Report is the result of Verify.
type Report struct {
	Complete    bool            `json:"complete"` // false: Verify ended early, and the report covers a part of the entries
	Entries     int64           `json:"entries"`  // number of entries that were read
	Counts      map[Class]int64 `json:"counts"`
	Repaired    map[Class]int64 `json:"mended"`
	Differences int64           `json:"differences"` // repaired or not
	Unrepaired  int64           `json:"unmended"`
	Held        int64           `json:"held"` // the part of Unrepaired that waits because too many keys are dirty
	Examples    []Difference    `json:"examples"`
	History     *HistoryReport  `json:"history,omitempty"` // its differences are in Differences and Unrepaired too
}

// Difference is one entry that differs from its row.
type Difference struct {
	Key      string   `json:"key"`
	Class    Class    `json:"class"`
	Redis    *Version `json:"redis"`    // null: no entry, or a corrupt one
	Postgres *Version `json:"postgres"` // null: no row
	Repaired bool     `json:"mended"`
}

// Version is the state of an entry or a row.
type Version struct {
	Value   int64 `json:"value"`
	Version int64 `json:"version"`
	Deleted bool  `json:"deleted"`
}

func (v *Version) String() string {
	if v == nil {
		return string(StateNone)
	}
	return storedRow(counter.Row{Value: v.Value, Version: v.Version, Deleted: v.Deleted}).String()
}

// verification is one run of Verify.
type verification struct {
	VerifyOptions

	cache    *cache.Cache
	store    Store
	report   Report
	limiter  *rate.Limiter
	suspects []finding // differences to be read again
}

// finding is an entry with its class.
type finding struct {
	class Class
	entry cache.Inspected
	row   *counter.Row // nil: no row
	reads int          // how often the entry was read
	due   time.Time    // when a suspect is read again
}

// Verify compares every entry with its row, and with Repair repairs the differences that are safe to repair. It reads entries in
// pages, each with one bounded call to Redis and one query. Redis is read before Postgres, so a write and its flush in between look
// like a difference. Verify therefore reads such an entry again 200 ms later. If the entry is still the same, it is a difference.
//
// With History it also replays the records of each counter that has some, and compares the result with its row. It repairs none of these
// differences, because nobody knows the operations that records lack.
//
// Verify blocks until all is read. The report is valid even if there is an error.
func (s *Service) Verify(ctx context.Context, o VerifyOptions) (Report, error) {
	v := &verification{VerifyOptions: o, cache: s.cache, store: s.store, limiter: rate.NewLimiter(rate.Inf, cache.ScanPage)}
	if o.Rate > 0 {
		v.limiter.SetLimit(rate.Limit(o.Rate))
	}
	v.report.Counts, v.report.Repaired, v.report.Examples = map[Class]int64{}, map[Class]int64{}, []Difference{}
	err := v.entries(ctx)
	if err == nil {
		err = v.members(ctx)
	}
	if err == nil {
		err = v.settle(ctx, 0)
	}
	if err == nil && o.History {
		err = v.histories(ctx)
	}
	v.report.Complete = err == nil
	return v.report, err
}

func (v *verification) entries(ctx context.Context) error {
	return v.cache.EachEntry(ctx, func(keys []counter.Key, strays []string) error {
		for _, name := range strays {
			v.report.Entries++
			v.count(Difference{Key: name, Class: ClassForeign}, false)
		}
		found, err := v.compare(ctx, keys)
		if err != nil {
			return err
		}
		v.report.Entries += int64(len(keys))
		for _, f := range found {
			v.judge(f)
		}
		if err := v.settle(ctx, maxSuspects); err != nil {
			return err
		}
		if v.Progress != nil {
			v.Progress(v.report)
		}
		return nil
	})
}

// members finds keys that are in an epoch, or set aside, but have no entry. A key may be in several of these sets.
func (v *verification) members(ctx context.Context) error {
	for shard := range v.cache.Shards() {
		orphans := make(map[counter.Key]bool)
		err := v.cache.EachMember(ctx, counter.Shard(shard), func(keys []counter.Key) error {
			if err := v.limiter.WaitN(ctx, len(keys)); err != nil {
				return err
			}
			entries, err := v.cache.Inspect(ctx, keys)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if e.Missing && e.Dirty && !orphans[e.Key] {
					orphans[e.Key] = true
					v.judge(finding{class: ClassOrphan, entry: e, reads: 1})
				}
			}
			return v.settle(ctx, maxSuspects)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// compare reads entries and then their rows.
func (v *verification) compare(ctx context.Context, keys []counter.Key) ([]finding, error) {
	if err := v.limiter.WaitN(ctx, len(keys)); err != nil {
		return nil, err
	}
	entries, err := v.cache.Inspect(ctx, keys)
	if err != nil {
		return nil, err
	}
	rows, err := v.store.Read(ctx, keys)
	if err != nil {
		return nil, err
	}
	found := make([]finding, len(entries))
	for i, e := range entries {
		row, ok := rows[e.Key]
		found[i] = finding{class: Compare(e, row, ok), entry: e, reads: 1}
		if ok {
			found[i].row = &row
		}
	}
	return found, nil
}

// judge counts an entry without a difference. It keeps any other to be read again, or counts it as unsettled after maxReads.
func (v *verification) judge(f finding) {
	switch {
	case f.class == classGone:
	case !f.class.isDifference():
		v.report.Counts[f.class]++
	case f.reads >= maxReads:
		v.report.Counts[ClassUnsettled]++
	default:
		f.due = time.Now().Add(settleTime)
		v.suspects = append(v.suspects, f)
	}
}

// settle reads the suspects that are due again, and blocks until at most limit suspects are left.
func (v *verification) settle(ctx context.Context, limit int) error {
	for len(v.suspects) > 0 {
		if wait := time.Until(v.suspects[0].due); wait > 0 {
			if len(v.suspects) <= limit {
				return nil
			}
			if err := pause(ctx, wait); err != nil {
				return err
			}
		}
		n := min(len(v.suspects), cache.ScanPage)
		for now := time.Now(); n > 1 && v.suspects[n-1].due.After(now); {
			n--
		}
		due := v.suspects[:n:n]
		v.suspects = v.suspects[n:]
		if err := v.reread(ctx, due); err != nil {
			return err
		}
	}
	return nil
}

// reread reads suspects again, and confirms the differences of those that have not changed.
func (v *verification) reread(ctx context.Context, suspects []finding) error {
	keys := make([]counter.Key, len(suspects))
	for i, s := range suspects {
		keys[i] = s.entry.Key
	}
	found, err := v.compare(ctx, keys)
	if err != nil {
		return err
	}
	var confirmed []finding
	for i, f := range found {
		if f.class.isDifference() && f.entry == suspects[i].entry {
			confirmed = append(confirmed, f)
		} else {
			f.reads += suspects[i].reads
			v.judge(f)
		}
	}
	return v.confirm(ctx, confirmed)
}
