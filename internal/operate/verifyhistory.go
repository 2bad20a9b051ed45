package operate

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// HistoryClass is the result of the replay of a counter's records.
type HistoryClass string

// The classes. Those from HistoryGap on are differences.
const (
	HistoryWhole HistoryClass = "whole"
	HistoryEnded HistoryClass = "ended"
	HistoryGap   HistoryClass = "gap"
	HistoryTwice HistoryClass = "twice"
	HistoryWrong HistoryClass = "wrong"
	HistoryRow   HistoryClass = "row"
)

// HistoryExplanation explains a HistoryClass in one line.
type HistoryExplanation struct {
	Class HistoryClass
	Text  string
}

// HistoryExplanations returns all classes in display order.
func HistoryExplanations() []HistoryExplanation {
	return []HistoryExplanation{
		{HistoryWhole, "the replay of the records gives the row"},
		{HistoryEnded, "the records agree, but AFTERWRITE_HISTORY does not have the counter any more: normal"},
		{HistoryGap, "a version has no record: it was deleted by hand, or the counter had no history then; not repaired"},
		{HistoryTwice, "a version has two records: one was added by hand; not repaired"},
		{HistoryWrong, "a record does not lead from the state before it to its value: changed by hand; not repaired"},
		{HistoryRow, "the last record is not the row: one of them was changed by hand, or postgres lost rows; not repaired"},
	}
}

// isDifference reports whether records and row should agree and do not.
func (c HistoryClass) isDifference() bool { return c != HistoryWhole && c != HistoryEnded }

// HistoryReport is the part of a Report about histories.
type HistoryReport struct {
	Counters    int64                  `json:"counters"` // counters with records
	Records     int64                  `json:"records"`
	Counts      map[HistoryClass]int64 `json:"counts"`
	Differences int64                  `json:"differences"` // none is repaired
	Examples    []HistoryDifference    `json:"examples"`
}

// HistoryDifference is one counter whose records do not give its row.
type HistoryDifference struct {
	Key    string       `json:"key"`
	Class  HistoryClass `json:"class"`
	Detail string       `json:"detail"`
}

// replay follows the records of a counter, in order. It holds one state, however many records there are.
type replay struct {
	begun   bool
	state   counter.Record // after the last record
	problem HistoryDifference
}

// begin starts from a checkpoint, or if that is nil from the first record.
func (r *replay) begin(checkpoint *counter.Record) {
	if checkpoint != nil {
		r.begun, r.state = true, *checkpoint
	}
}

// add follows one record. It keeps only the first problem.
func (r *replay) add(next counter.Record) {
	before, begun := r.state, r.begun
	r.begun, r.state = true, next
	switch {
	case next.Version < 1:
		r.failf(HistoryWrong, "a record has the version %d", next.Version)
	case begun && next.Version <= before.Version:
		r.failf(HistoryTwice, "version %d has more than one record", next.Version)
	case begun && next.Version > before.Version+1 && next.Change != counter.Rewound:
		r.failf(HistoryGap, "version %d follows version %d", next.Version, before.Version)
	case !next.Known:
		r.failf(HistoryWrong, "version %d has no value", next.Version)
	default:
		r.check(before, begun, next)
	}
}

// check compares a record's value with what its operation makes of the state before it. The first one may have any value before it: that
// of a column, or one from before the counter had a history.
func (r *replay) check(before counter.Record, begun bool, next counter.Record) {
	want := next.Amount // also 0 of a deleted counter
	switch {
	case next.Deleted != (next.Change == counter.Removed) && next.Change != counter.Rewound:
		r.failf(HistoryWrong, "version %d has the operation %s, and an amount that is not its", next.Version, next.Change)
		return
	case next.Change == counter.Incremented && (!begun || !before.Known):
		return
	case next.Change == counter.Incremented:
		want += before.Value
	}
	if next.Value != want {
		r.failf(HistoryWrong, "version %d has the value %d, and its operation gives %d", next.Version, next.Value, want)
	}
}

func (r *replay) failf(class HistoryClass, format string, args ...any) {
	if r.problem.Class == "" {
		r.problem = HistoryDifference{Class: class, Detail: fmt.Sprintf(format, args...)}
	}
}

// end compares the last state with the row. recorded: the counter has a history now.
func (r *replay) end(row *counter.Row, recorded bool) HistoryDifference {
	switch {
	case r.problem.Class != "":
	case row == nil && r.state.Deleted: // its tombstone was purged
	case row == nil:
		r.failf(HistoryRow, "the last record has version %d, and there is no row", r.state.Version)
	case !recorded && row.Version > r.state.Version:
		return HistoryDifference{Class: HistoryEnded}
	case row.Version != r.state.Version:
		r.failf(HistoryRow, "the last record has version %d, and the row has %d", r.state.Version, row.Version)
	case row.Deleted != r.state.Deleted, !row.Deleted && r.state.Known && row.Value != r.state.Value:
		last := Version{Value: r.state.Value, Version: r.state.Version, Deleted: r.state.Deleted}
		has := Version{Value: row.Value, Version: row.Version, Deleted: row.Deleted}
		r.failf(HistoryRow, "the last record leads to %s, and the row is %s", &last, &has)
	}
	if r.problem.Class == "" {
		return HistoryDifference{Class: HistoryWhole}
	}
	return r.problem
}

// histories replays the records of all counters. It reads them page by page, so a flush in between looks like a difference. Such a counter
// is read again alone, in one snapshot.
func (v *verification) histories(ctx context.Context) error {
	v.report.History = &HistoryReport{Counts: map[HistoryClass]int64{}, Examples: []HistoryDifference{}}
	var place store.RecordPlace
	var key counter.Key
	var current *replay // of key, whose records may go on in the next page
	for more := true; more; {
		records, next, err := v.store.Records(ctx, place, cache.ScanPage)
		if err != nil {
			return err
		}
		place, more = next, len(records) == cache.ScanPage
		ends, err := v.store.HistoryEnds(ctx, keysOf(key, records))
		if err != nil {
			return err
		}
		for _, r := range records {
			if current != nil && r.Key != key {
				if err := v.conclude(ctx, key, current, ends[key]); err != nil {
					return err
				}
				current = nil
			}
			if current == nil {
				key, current = r.Key, new(replay)
				current.begin(ends[key].Checkpoint)
			}
			current.add(r.Record)
		}
		if current != nil && !more {
			if err := v.conclude(ctx, key, current, ends[key]); err != nil {
				return err
			}
		}
		if err := v.pace(ctx, records); err != nil {
			return err
		}
	}
	return nil
}

// keysOf returns the keys of a page, and the key whose records the page before ended with, if any.
func keysOf(before counter.Key, records []store.KeyedRecord) []counter.Key {
	var keys []counter.Key
	if before != "" {
		keys = append(keys, before)
	}
	for _, r := range records {
		if len(keys) == 0 || r.Key != keys[len(keys)-1] {
			keys = append(keys, r.Key)
		}
	}
	return keys
}

// pace counts a page of records, and waits if they are read too fast.
func (v *verification) pace(ctx context.Context, records []store.KeyedRecord) error {
	v.report.History.Records += int64(len(records))
	if v.Progress != nil {
		v.Progress(v.report)
	}
	return v.limiter.WaitN(ctx, len(records))
}

// conclude counts a counter. If its records do not give its row, it reads both again.
func (v *verification) conclude(ctx context.Context, key counter.Key, r *replay, ends store.HistoryEnds) error {
	found := r.end(ends.Row, v.cache.Recorded(key))
	if found.Class.isDifference() {
		var err error
		if found, err = v.replayAlone(ctx, key); err != nil {
			return err
		}
	}
	h := v.report.History
	h.Counters++
	h.Counts[found.Class]++
	if !found.Class.isDifference() {
		return nil
	}
	h.Differences++
	v.report.Differences++
	v.report.Unrepaired++
	if found.Key = string(key); len(h.Examples) < v.Examples {
		h.Examples = append(h.Examples, found)
	}
	return nil
}

// replayAlone replays the records of one counter in a snapshot.
func (v *verification) replayAlone(ctx context.Context, key counter.Key) (HistoryDifference, error) {
	r := new(replay)
	ends, err := v.store.ReadHistory(ctx, key, func(ends store.HistoryEnds, records []store.KeyedRecord) {
		if !r.begun {
			r.begin(ends.Checkpoint)
		}
		for _, next := range records {
			r.add(next.Record)
		}
	})
	if err != nil {
		return HistoryDifference{}, err
	}
	return r.end(ends.Row, v.cache.Recorded(key)), nil
}
