package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxReconcileLogs bounds the log lines of one batch: a failover may leave thousands of conflicts.
const maxReconcileLogs = 10

var errTwoStates = errors.New("postgres has a different value for the same version: another program has written to the row")

// reconcile compares entries of b with the rows that kept them out of Postgres. Usually the cause is a flush that ran twice or late, and
// nothing has to be done. But if a row has writes that the entry lacks, Redis has lost its latest writes, and reconcile repairs the entry:
// it stays dirty, and its next flush succeeds. reconcile returns the keys whose state Postgres does not have yet, and adds rows that cannot
// be reconciled to done.refused.
func (f *Flusher) reconcile(ctx context.Context, b batch, ahead []counter.Row, done *flushed) (map[counter.Key]bool, error) {
	unsettled := make(map[counter.Key]bool)
	if len(ahead) == 0 { // step: reconcile
		return unsettled, nil
	}
	conflicts, differing := compare(b, ahead)
	for _, row := range differing {
		unsettled[row.Key] = true
		done.refused = append(done.refused, refusal{row, errTwoStates})
	}
	for _, c := range conflicts {
		unsettled[c.Entry.Key] = true // even if the calls below fail
	}
	repaired := 0
	for part := range slices.Chunk(conflicts, cache.MaxConflicts) {
		answers, err := f.cache.Reconcile(ctx, b.shard, part)
		if err != nil {
			return unsettled, err
		}
		for i, c := range part {
			switch answers[i] {
			case cache.Reconciled:
				if fromColumn(&c.Row) {
					f.logger.InfoContext(ctx, "the column of a counter changed before its first flush, and the counter was added to it",
						"key", c.Entry.Key, "redis_value", c.Entry.Value, "column_value", c.Row.Value)
					continue
				}
				if repaired++; repaired <= maxReconcileLogs {
					f.logger.WarnContext(ctx, "redis has lost writes that postgres has: the counter was repaired",
						"key", c.Entry.Key, "redis_version", c.Entry.Version, "redis_base", c.Entry.Base, "redis_value", c.Entry.Value,
						"postgres_version", c.Row.Version, "postgres_value", c.Row.Value)
				}
			case cache.ConflictOverflow:
				reason := fmt.Errorf("%w (postgres has %d)", errBaseOverflow, c.Row.Value)
				done.refused = append(done.refused, refusal{c.Entry.Row, reason})
			case cache.Superseded:
				// Without Adopt: the entry was written since and is in the open epoch.
				// With Adopt: a later flush of the same lineage was faster, and Postgres has the entry.
				unsettled[c.Entry.Key] = !c.Adopt
			}
		}
	}
	if repaired > maxReconcileLogs {
		f.logger.WarnContext(ctx, "redis has lost writes that postgres has: counters were repaired, and only the first 10 were logged",
			"shard", b.shard, "counters", repaired)
	}
	f.metrics.reconciled.Add(float64(repaired))
	return unsettled, nil
}

// maxChanged bounds the flushes of one batch whose columns go on changing.
const maxChanged = 3

// flushChanged flushes counters at once that were added to a column that had changed. Until the next drain, an application that still
// writes the column may have changed it again, so a busy counter would never be flushed.
func (f *Flusher) flushChanged(ctx context.Context, b batch, ahead []counter.Row) (flushed, error) {
	var keys []counter.Key
	for i := range ahead {
		if fromColumn(&ahead[i]) {
			keys = append(keys, ahead[i].Key)
		}
	}
	if len(keys) == 0 || b.tries == maxChanged {
		return flushed{}, nil
	}
	snapshot, err := f.cache.Read(ctx, b.shard, keys)
	if err == nil {
		err = f.cache.ReadRecords(ctx, &snapshot)
	}
	if err != nil {
		return flushed{}, err
	}
	again := batch{shard: b.shard, backlog: b.backlog, tries: b.tries + 1}
	for _, e := range snapshot.Entries {
		if !e.Missing && !e.Corrupt && !e.BaseUnknown && e.Epoch > 0 {
			again.entries = append(again.entries, e)
		}
	}
	return f.commit(ctx, again)
}

// fromColumn reports whether row is the value of a mapped column, and not a row of the table counters.
func fromColumn(row *counter.Row) bool { return row.Version == 0 && row.Lineage == 0 }

// compare returns the conflicts between the entries of b and the rows that kept them out, and the rows of entries that differ from Postgres
// although the version is the same. A row that equals its entry is in neither.
func compare(b batch, ahead []counter.Row) (conflicts []cache.Conflict, differing []counter.Row) {
	flushed := make(map[counter.Key]cache.Entry, len(b.entries))
	for _, e := range b.entries {
		flushed[e.Key] = e
	}
	for _, row := range ahead {
		e := flushed[row.Key]
		switch {
		case e.Lineage != row.Lineage:
			conflicts = append(conflicts, cache.Conflict{Entry: e, Row: row})
		case row.Version > e.Version:
			// Usually another flush of the same lineage was faster: the entry is at least as new as the row by now, and nothing changes.
			conflicts = append(conflicts, cache.Conflict{Entry: e, Row: row, Adopt: true})
		case row.Value != e.Value || row.Deleted != e.Deleted:
			differing = append(differing, e.Row)
		}
	}
	return conflicts, differing
}
