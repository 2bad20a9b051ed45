package operate_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

func (b *testBundle) set(t *testing.T, key counter.Key, value int64) {
	t.Helper()
	b.do(t, set(key, value))
}

func (b *testBundle) value(t *testing.T, key counter.Key) int64 {
	t.Helper()
	return b.do(t, get(key))[0].Counter.Value
}

func (b *testBundle) verify(t *testing.T, repair bool) operate.Report {
	t.Helper()
	report, err := b.service.Verify(t.Context(), operate.VerifyOptions{Repair: repair, MaxDirty: 1_000_000, Examples: 10})
	require.NoError(t, err)
	require.True(t, report.Complete)
	return report
}

func (b *testBundle) entry(key counter.Key) string {
	return "{aw:" + b.cache.Shard(key).String() + "}:c:" + string(key)
}

func TestRepairAfterAnOlderBackupFlushesEntriesAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, key := range []counter.Key{"same", "older", "lineage", "missing"} {
		b.set(t, key, 1)
	}
	b.drainAll(t)
	b.exec(t, `CREATE TABLE backup AS SELECT key, value, version, deleted_at, updated_at, lineage, base FROM counters WHERE key <> 'missing'`)
	for _, key := range []counter.Key{"older", "lineage", "missing"} {
		b.set(t, key, 2)
		b.set(t, key, 3)
	}
	b.drainAll(t)
	b.exec(t, `TRUNCATE counters`)
	b.exec(t, `INSERT INTO counters SELECT key, value, version, deleted_at, updated_at, lineage, base FROM backup`)
	b.exec(t, `UPDATE counters SET lineage = 99, base = 0, version = 2 WHERE key = 'lineage'`)

	want := map[operate.Class]int64{operate.ClassEqual: 1, operate.ClassAhead: 2, operate.ClassMissing: 1}
	report := b.verify(t, false)
	require.Equal(t, want, report.Counts)
	require.EqualValues(t, 3, report.Unrepaired)
	report = b.verify(t, true)
	require.Equal(t, want, report.Counts)
	require.Zero(t, report.Unrepaired)
	require.Equal(t, map[operate.Class]int64{operate.ClassDirty: 3, operate.ClassEqual: 1}, b.verify(t, false).Counts)
	b.do(t, increment("older", 5)) // before the flush

	b.drainAll(t)

	require.Equal(t, map[operate.Class]int64{operate.ClassEqual: 4}, b.verify(t, false).Counts)
	rows, err := b.store.Read(t.Context(), []counter.Key{"older", "lineage", "missing"})
	require.NoError(t, err)
	require.Equal(t, int64(8), rows["older"].Value)
	require.Equal(t, int64(3), rows["lineage"].Value)
	require.Equal(t, int64(3), rows["missing"].Value)
}

// A mapped counter begins with the value of its column. Until its first write it has no row in counters.
func TestCountersThatWereOnlyReadFromTheirColumnAreEqual(t *testing.T) {
	t.Parallel()
	b := setup(t)
	mappings, err := mapping.Parse([]byte(mappingsYAML))
	require.NoError(t, err)
	b.exec(t, mappedTables)
	b.exec(t, `INSERT INTO posts VALUES (1, 1234), (2, 1234)`)
	mapped, err := store.Open(b.url, store.Options{Logger: slog.New(slog.DiscardHandler), Mappings: mappings})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, mapped.Close()) })
	b.writes = writepath.Open(writepath.Parts{Cache: b.cache, Store: mapped, BaseTimeout: 10 * time.Second})
	t.Cleanup(b.writes.Close)
	require.EqualValues(t, 1234, b.value(t, "post:1:likes"))

	report := b.verify(t, true)
	require.Equal(t, map[operate.Class]int64{operate.ClassEqual: 1}, report.Counts, "%+v", report.Examples)
}

func TestRepairDropsAnEntryOlderThanItsRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "k", 1)
	b.drainAll(t)
	dump := b.redis.Dump(t.Context(), b.entry("k")).Val()
	b.set(t, "k", 2)
	b.drainAll(t)
	require.NoError(t, b.redis.RestoreReplace(t.Context(), b.entry("k"), time.Hour, dump).Err())
	require.Equal(t, int64(1), b.value(t, "k"))

	report := b.verify(t, true)

	require.Equal(t, map[operate.Class]int64{operate.ClassBehind: 1}, report.Counts)
	require.Equal(t, "2 (version 2)", report.Examples[0].Postgres.String())
	require.Equal(t, int64(2), b.value(t, "k"))
	require.Equal(t, map[operate.Class]int64{operate.ClassEqual: 1}, b.verify(t, false).Counts)
}

func TestChangesByHandAreReportedAndNotRepaired(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "different", 1)
	b.set(t, "foreign", 1)
	b.drainAll(t)
	b.set(t, "orphan", 1)
	b.exec(t, `UPDATE counters SET value = 7 WHERE key = 'different'`)
	require.NoError(t, b.redis.Set(t.Context(), b.entry("foreign"), "x", 0).Err())
	require.NoError(t, b.redis.Del(t.Context(), b.entry("orphan")).Err())
	for range 2 {
		report := b.verify(t, true)
		require.Equal(t, map[operate.Class]int64{operate.ClassDifferent: 1, operate.ClassForeign: 1, operate.ClassOrphan: 1}, report.Counts)
		require.EqualValues(t, 3, report.Unrepaired)
	}
}

func TestRepairLeavesRoomForWrites(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.set(t, "k", 1)
	b.drainAll(t)
	b.exec(t, `TRUNCATE counters`)
	report, err := b.service.Verify(t.Context(), operate.VerifyOptions{Repair: true, MaxDirty: 1})
	require.NoError(t, err)
	require.EqualValues(t, 1, report.Held)
	require.EqualValues(t, 1, report.Unrepaired)
}

func TestConcurrentWritesAndFlushesAreNotDifferences(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := counter.Key(fmt.Sprint("k", (i*7+w)%500))
				b.writes.Do(context.Background(), []counter.Operation{
					{Key: key, Kind: counter.Increment, Amount: 1},
					{Key: key + "d", Kind: []counter.Kind{counter.Set, counter.Delete}[i%2]},
				}, writepath.Options{})
			}
		})
	}
	group.Go(func() {
		for ctx.Err() == nil {
			_, _, _ = b.worker.DrainAll(context.Background(), "test")
		}
	})
	for range 10 {
		report := b.verify(t, false)
		require.Zero(t, report.Differences, "%+v", report)
	}
	cancel()
	group.Wait()
	b.drainAll(t)
	require.Zero(t, b.verify(t, false).Differences)
}
