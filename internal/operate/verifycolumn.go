package operate

import (
	"context"
	"strconv"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
)

// ColumnClass is the result of comparing a counter with its column.
type ColumnClass string

// The classes.
const (
	ColumnEqual      ColumnClass = "equal"
	ColumnDiffers    ColumnClass = "differs"
	ColumnMissing    ColumnClass = "missing"
	ColumnStale      ColumnClass = "stale"
	ColumnUnimported ColumnClass = "unimported"
	ColumnKeyless    ColumnClass = "keyless"
)

// ColumnExplanation explains a ColumnClass in one line.
type ColumnExplanation struct {
	Class      ColumnClass
	Text       string
	NeedsTable bool // it is counted only if the whole table is read
}

// ColumnExplanations returns all classes in display order.
func ColumnExplanations() []ColumnExplanation {
	return []ColumnExplanation{
		{ColumnEqual, "counter and column agree", false},
		{ColumnDiffers, "somebody else wrote the column, or the row came after the flush; --repair writes the counter's value", false},
		{ColumnMissing, "the counter has no row; --repair inserts it if the mapping has missing: insert", false},
		{ColumnStale, "imported and not counted since, and the column was written meanwhile: the counter's next flush adds to that", false},
		{ColumnUnimported, "the row has a value but no counter: normal until it is counted or imported", true},
		{ColumnKeyless, "no key can have the row's values: it cannot be counted", true},
	}
}

// VerifyColumnOptions are the options of Verify.
type VerifyColumnOptions struct {
	Repair     bool
	Unimported bool                 // also read the whole table, to count rows without counters
	Rate       int                  // counters or rows a second at most; 0: no limit
	Examples   int                  // maximum number of differences in the report
	Progress   func(ColumnVerified) // called after each page; may be nil
}

// ColumnVerified is the result of Verify.
type ColumnVerified struct {
	Mapping    string                `json:"mapping"`
	Complete   bool                  `json:"complete"` // false: it ended early
	Counters   int64                 `json:"counters"` // counters that were compared, deleted ones too
	Rows       int64                 `json:"rows"`     // rows of the table that were read for Unimported
	Counts     map[ColumnClass]int64 `json:"counts"`
	Repaired   int64                 `json:"repaired"`
	Unrepaired int64                 `json:"unrepaired"` // differences that are left
	Examples   []ColumnDifference    `json:"examples"`
	// Problems are the reasons why counters were not repaired.
	Problems []BackfillException `json:"problems"`
}

// ColumnDifference is one counter that differs from its column, or a row without a counter.
type ColumnDifference struct {
	Key      counter.Key `json:"key"`
	Row      string      `json:"row"` // "public.posts (id = 7)"
	Class    ColumnClass `json:"class"`
	Counter  *string     `json:"counter"` // what the column should have; null: NULL, or no counter
	Column   *string     `json:"column"`  // what it has; null: NULL, or no row
	Repaired bool        `json:"repaired"`
}

// Verify compares the mapping's counters in Postgres with the column, and with Repair writes the counters that differ. Both are read in one
// snapshot, in which they agree as far as afterwrite has written them, so flushes meanwhile are no differences.
//
// A missing row is a difference only if the mapping inserts missing rows. Verify blocks until all counters are read. The report is valid
// even if there is an error.
func (c *Column) Verify(ctx context.Context, o VerifyColumnOptions) (ColumnVerified, error) {
	v := columnVerification{VerifyColumnOptions: o, column: c, repair: backfill{column: c, limit: o.Examples}}
	v.report = ColumnVerified{Mapping: c.mapping.Name, Counts: map[ColumnClass]int64{}, Examples: []ColumnDifference{}}
	v.repair.report.Examples = []BackfillException{}
	err := c.eachPage(ctx, o.Rate, func(targets []store.Target) error { return v.progress(v.compare(ctx, targets)) })
	if err == nil && o.Unimported {
		err = c.eachTablePage(ctx, o.Rate, nil, func(rows []store.TableRow) error { return v.progress(v.lacking(ctx, rows)) })
	}
	v.report.Problems = v.repair.report.Examples
	v.report.Complete = err == nil
	return v.report, err
}

// columnVerification is one run of Verify.
type columnVerification struct {
	VerifyColumnOptions

	column *Column
	repair backfill
	report ColumnVerified
}

func (v *columnVerification) progress(err error) error {
	if err == nil && v.Progress != nil {
		v.Progress(v.report)
	}
	return err
}

// compare compares a page of counters with the column.
func (v *columnVerification) compare(ctx context.Context, targets []store.Target) error {
	compared, err := v.column.column.Compare(ctx, targets)
	if err != nil {
		return err
	}
	values := make(map[counter.Key][]string, len(targets))
	for _, t := range targets {
		values[t.Key] = t.Values
	}
	var differ []store.Target
	var found []ColumnDifference
	for _, one := range compared {
		d := ColumnDifference{Key: one.Key, Class: classOfColumn(one), Column: one.Column}
		v.report.Counters++
		v.report.Counts[d.Class]++
		if d.Class == ColumnEqual {
			continue
		}
		if d.Row = v.column.mapping.Row(values[one.Key]); !one.Null {
			d.Counter = new(strconv.FormatInt(one.Value, 10))
		}
		if v.isDifference(d.Class) {
			differ, found = append(differ, store.Target{Key: one.Key, Values: values[one.Key]}), append(found, d)
		} else {
			v.example(d)
		}
	}
	return v.settle(ctx, differ, found)
}

func classOfColumn(c store.Compared) ColumnClass {
	switch {
	case c.Equal:
		return ColumnEqual
	case c.Imported:
		return ColumnStale
	case c.Found:
		return ColumnDiffers
	}
	return ColumnMissing
}

// isDifference reports whether counter and column should agree.
func (v *columnVerification) isDifference(class ColumnClass) bool {
	return class == ColumnDiffers || class == ColumnMissing && v.column.mapping.Missing == mapping.Insert
}

// settle repairs the differences of a page, if it may, and reports them.
func (v *columnVerification) settle(ctx context.Context, differ []store.Target, found []ColumnDifference) error {
	unrepaired := make(map[counter.Key]bool)
	var err error
	if v.Repair && len(differ) > 0 {
		var done store.Backfilled
		done, err = v.repair.write(ctx, differ)
		for _, key := range append(done.Missing, done.Locked...) {
			unrepaired[key] = true
		}
		for _, refused := range done.Refused {
			unrepaired[refused.Key] = true
		}
	}
	for _, d := range found {
		if d.Repaired = v.Repair && err == nil && !unrepaired[d.Key]; d.Repaired {
			v.report.Repaired++
		} else {
			v.report.Unrepaired++
		}
		v.example(d)
	}
	return err
}

// lacking counts the rows of a page that have a value but no counter.
func (v *columnVerification) lacking(ctx context.Context, rows []store.TableRow) error {
	v.report.Rows += int64(len(rows))
	targets := v.column.targets(rows, func(row store.TableRow) {
		v.report.Counts[ColumnKeyless]++
		v.example(ColumnDifference{Row: v.column.mapping.Row(row.Values), Class: ColumnKeyless})
	})
	keys, err := v.column.column.Lacking(ctx, targets)
	if err != nil {
		return err
	}
	v.report.Counts[ColumnUnimported] += int64(len(keys))
	for _, key := range keys[:min(len(keys), max(0, v.Examples-len(v.report.Examples)))] {
		_, values := v.column.mappings.Match(key)
		v.example(ColumnDifference{Key: key, Row: v.column.mapping.Row(values), Class: ColumnUnimported})
	}
	return nil
}

func (v *columnVerification) example(d ColumnDifference) {
	if len(v.report.Examples) < v.Examples {
		v.report.Examples = append(v.report.Examples, d)
	}
}
