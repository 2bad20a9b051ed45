package operate_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// recordHistories writes counters with a history to Postgres: four operations each that end with 11, or with a deletion if the key is
// "deleted".
func (b *testBundle) recordHistories(t *testing.T, keys ...counter.Key) {
	t.Helper()
	for _, key := range keys {
		at := time.Now().UTC().Truncate(time.Millisecond)
		r := func(version, amount, value int64, change counter.Change) counter.Record {
			return counter.Record{
				Version: version, Lineage: 7, At: at, Change: change, Amount: amount, Value: value, Known: true, Deleted: change == counter.Removed,
			}
		}
		all := []counter.Record{
			r(1, 10, 10, counter.Assigned), r(2, 1, 11, counter.Incremented), r(3, -1, 10, counter.Incremented), r(4, 1, 11, counter.Incremented),
		}
		row := counter.Row{Key: key, Value: 11, Version: 4, Lineage: 7}
		if key == "deleted" {
			all[3], row.Value, row.Deleted = r(4, 0, 0, counter.Removed), 0, true
		}
		_, err := b.store.UpsertHistory(t.Context(), []counter.Row{row}, store.History{key: all})
		require.NoError(t, err)
	}
}

// verifyHistory returns the classes of counters, and the details of the differences by key.
func (b *testBundle) verifyHistory(t *testing.T, repair bool) (map[operate.HistoryClass]int64, map[string]string) {
	t.Helper()
	report, err := b.service.Verify(t.Context(), operate.VerifyOptions{Repair: repair, History: true, MaxDirty: 1000, Examples: 10})
	require.NoError(t, err)
	require.True(t, report.Complete)
	details := make(map[string]string)
	for _, d := range report.History.Examples {
		details[d.Key] = string(d.Class) + ": " + d.Detail
	}
	require.Len(t, details, int(report.History.Differences))
	require.Equal(t, report.History.Differences, report.Unrepaired)
	return report.History.Counts, details
}

func TestVerifyReportsDamagedHistoriesAndRepairsNone(t *testing.T) {
	t.Parallel()
	b := setup(t, func(counter.Key) bool { return true })
	b.recordHistories(t, "whole", "deleted", "removed", "last", "first", "changed", "value", "null", "added", "beyond", "zero", "row", "norow")
	b.exec(t, `DELETE FROM operations WHERE key = 'removed' AND version IN (2, 3)`)
	b.exec(t, `DELETE FROM operations WHERE key = 'last' AND version = 4`)
	b.exec(t, `UPDATE operations SET amount = 2 WHERE key = 'changed' AND version = 2`)
	b.exec(t, `UPDATE operations SET value = 12 WHERE key = 'value' AND version = 4`)
	b.exec(t, `UPDATE operations SET value = NULL WHERE key = 'null' AND version = 3`)
	const add = `INSERT INTO operations (key, version, lineage, day, at, operation, amount, value)
		SELECT key, $2, $3, day, at, operation, amount, value FROM operations WHERE key = $1 AND version = $4`
	b.exec(t, add, "added", 3, 8, 3)
	b.exec(t, add, "beyond", 5, 7, 1)
	b.exec(t, add, "zero", 0, 7, 1)
	b.exec(t, `UPDATE counters SET value = 12 WHERE key = 'row'`)
	b.exec(t, `DELETE FROM counters WHERE key IN ('norow', 'deleted')`)
	for _, repair := range []bool{false, true} {
		counts, details := b.verifyHistory(t, repair)
		require.Equal(t, map[string]string{
			"removed": "gap: version 4 follows version 1",
			"last":    "row: the last record has version 3, and the row has 4",
			"changed": "wrong: version 2 has the value 11, and its operation gives 12",
			"value":   "wrong: version 4 has the value 12, and its operation gives 11",
			"null":    "wrong: version 3 has no value",
			"added":   "twice: version 3 has more than one record",
			"beyond":  "row: the last record has version 5, and the row has 4",
			"zero":    "wrong: a record has the version 0",
			"row":     "row: the last record leads to 11 (version 4), and the row is 12 (version 4)",
			"norow":   "row: the last record has version 4, and there is no row",
		}, details)
		require.EqualValues(t, 3, counts[operate.HistoryWhole])
	}
}

// Histories of more than a page, and one of a counter that was deleted and created again.
func TestVerifyReplaysLongAndNewHistories(t *testing.T) {
	t.Parallel()
	b := setup(t, func(counter.Key) bool { return true })
	b.recordHistories(t, "a", "deleted", "z")
	b.exec(t, `INSERT INTO operations (key, version, lineage, day, at, operation, amount, value)
		SELECT 'long' || k, n, 1, current_date, now(), 'increment', 1, n FROM generate_series(1, 1200) n, generate_series(1, 3) k`)
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at) SELECT 'long' || k, 1200, 1200, now() FROM generate_series(1, 3) k`)
	b.exec(t, `INSERT INTO operations (key, version, lineage, day, at, operation, amount, value)
		SELECT 'deleted', n + 4, 9, current_date, now(), 'increment', 1, n FROM generate_series(1, 2) n`)
	b.exec(t, `UPDATE counters SET value = 2, version = 6, deleted_at = NULL WHERE key = 'deleted'`)
	counts, details := b.verifyHistory(t, false)
	require.Empty(t, details)
	require.Equal(t, map[operate.HistoryClass]int64{operate.HistoryWhole: 6}, counts)

	b.exec(t, `DELETE FROM operations WHERE key = 'deleted' AND lineage = 9 AND version = 5`)
	b.exec(t, `DELETE FROM operations WHERE key = 'long2' AND version = 1100`)
	_, details = b.verifyHistory(t, false)
	require.Equal(t, map[string]string{
		"deleted": "gap: version 6 follows version 4", "long2": "gap: version 1101 follows version 1099",
	}, details)
}

func TestVerifyBeginsWithTheCheckpoint(t *testing.T) {
	t.Parallel()
	b := setup(t, func(counter.Key) bool { return true })
	b.recordHistories(t, "a", "b", "gone")
	b.exec(t, `INSERT INTO operations_checkpoints (key, version, at, value, deleted)
		SELECT key, version, at, value, false FROM operations WHERE key IN ('a', 'b') AND version = 2`)
	b.exec(t, `DELETE FROM operations WHERE key IN ('a', 'b') AND version <= 2 OR key = 'b' AND version = 3`)
	_, details := b.verifyHistory(t, false)
	require.Equal(t, map[string]string{"b": "gap: version 4 follows version 2"}, details)
}

func TestVerifyAcceptsACounterThatHasNoHistoryAnyMore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.recordHistories(t, "a")
	b.exec(t, `UPDATE counters SET value = 50, version = 9`)
	counts, _ := b.verifyHistory(t, false)
	require.Equal(t, map[operate.HistoryClass]int64{operate.HistoryEnded: 1}, counts)
}

func TestFlushesMeanwhileAreNoDifferencesOfHistories(t *testing.T) {
	t.Parallel()
	b := setup(t, func(counter.Key) bool { return true })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			b.writes.Do(context.Background(), []counter.Operation{increment("a", 1), increment("b", 2), set("c", 3)}, writepath.Options{})
			_, _, _ = b.worker.DrainAll(context.Background(), "test")
		}
	}()
	for range 20 {
		_, details := b.verifyHistory(t, false)
		require.Empty(t, details)
	}
	cancel()
	<-done
	b.drainAll(t)
	counts, _ := b.verifyHistory(t, false)
	require.EqualValues(t, 3, counts[operate.HistoryWhole])
}
