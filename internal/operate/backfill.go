package operate

import (
	"context"
	"errors"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// maxLockedPages bounds the pages in a row in which nothing was written because of locks. The table is locked, and each page takes
// seconds.
const maxLockedPages = 3

// errTableLocked ends a Backfill that cannot write.
var errTableLocked = errors.New("another transaction locks the table, or most of its rows: end it and run the command again")

// Problem is why a counter was not written to its column.
type Problem string

// The problems.
const (
	ProblemMissing Problem = "missing" // the row does not exist, and was not inserted
	ProblemRefused Problem = "refused" // Postgres refuses the value
	ProblemLocked  Problem = "locked"  // another transaction locks the row
)

// BackfillOptions are the options of Backfill.
type BackfillOptions struct {
	Rate     int              // counters a second at most; 0: no limit
	Examples int              // maximum number of problems in the report
	Progress func(Backfilled) // called after each page; may be nil
}

// Backfilled is the result of Backfill.
type Backfilled struct {
	Mapping  string              `json:"mapping"`
	Complete bool                `json:"complete"` // false: it ended early
	Counters int64               `json:"counters"` // counters of the mapping that were read, deleted ones too
	Equal    int64               `json:"equal"`    // the column had the value already
	Updated  int64               `json:"updated"`
	Inserted int64               `json:"inserted"`
	Missing  int64               `json:"missing"` // counters without a row
	Refused  int64               `json:"refused"`
	Locked   int64               `json:"locked"`
	Examples []BackfillException `json:"examples"`
}

// BackfillException is a counter that was not written.
type BackfillException struct {
	Key     counter.Key `json:"key"`
	Row     string      `json:"row"` // "public.posts (id = 7)"
	Problem Problem     `json:"problem"`
	Reason  string      `json:"reason,omitempty"` // Postgres's
}

// Backfill writes the mapping's counters into the column, where it differs: after rows were inserted or restored, or the mapping is new. It
// never overwrites a value by an older one, even while workers flush. It may be interrupted and repeated.
//
// A row that Postgres refuses, or that another transaction locks for long, costs only itself. If all rows of some pages are locked,
// Backfill ends with an error. It blocks until all counters are read. The report is valid even if there is an error.
func (c *Column) Backfill(ctx context.Context, o BackfillOptions) (Backfilled, error) {
	b := backfill{column: c, limit: o.Examples}
	b.report.Mapping, b.report.Examples = c.mapping.Name, []BackfillException{}
	err := c.eachPage(ctx, o.Rate, func(targets []store.Target) error {
		if _, err := b.write(ctx, targets); err != nil {
			return err
		}
		if o.Progress != nil {
			o.Progress(b.report)
		}
		return nil
	})
	b.report.Complete = err == nil
	return b.report, err
}

// backfill is one run of Backfill, or the repair of one run of VerifyColumn.
type backfill struct {
	column *Column
	limit  int // of examples
	report Backfilled

	lockedPages int // in a row
}

// write writes a page.
func (b *backfill) write(ctx context.Context, targets []store.Target) (store.Backfilled, error) {
	done, err := b.column.column.Backfill(ctx, targets)
	r := &b.report
	r.Counters += done.Counters
	r.Updated += done.Updated
	r.Inserted += done.Inserted
	r.Missing += int64(len(done.Missing))
	r.Refused += int64(len(done.Refused))
	r.Locked += int64(len(done.Locked))
	r.Equal = r.Counters - r.Updated - r.Inserted - r.Missing
	for _, key := range done.Missing {
		b.example(key, ProblemMissing, nil)
	}
	for _, refused := range done.Refused {
		b.example(refused.Key, ProblemRefused, refused.Err)
	}
	for _, key := range done.Locked {
		b.example(key, ProblemLocked, nil)
	}
	if err != nil {
		return done, err
	}
	if b.lockedPages++; len(done.Locked) < len(targets) || len(targets) == 0 {
		b.lockedPages = 0
	}
	if b.lockedPages == maxLockedPages {
		return done, errTableLocked
	}
	return done, nil
}

func (b *backfill) example(key counter.Key, problem Problem, err error) {
	if len(b.report.Examples) >= b.limit {
		return
	}
	_, values := b.column.mappings.Match(key)
	e := BackfillException{Key: key, Row: b.column.mapping.Row(values), Problem: problem}
	if err != nil {
		e.Reason = err.Error()
	}
	b.report.Examples = append(b.report.Examples, e)
}
