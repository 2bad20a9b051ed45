package store

import (
	"context"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// records returns increments by 1 up to the version of a row of one lineage.
func records(r counter.Row, from int64) []counter.Record {
	var all []counter.Record
	for version := from; version <= r.Version; version++ {
		all = append(all, counter.Record{
			Version: version, Lineage: r.Lineage, At: time.Now().UTC().Truncate(time.Millisecond), Change: counter.Incremented, Amount: 1,
			Value: r.Value - r.Version + version, Known: true,
			Origin: counter.Origin{Caller: "web", Request: "r1", Note: "ключ"},
		})
	}
	return all
}

// lineage returns a row of a lineage that began after the version base.
func lineage(key counter.Key, value, version, number, base int64) counter.Row {
	return counter.Row{Key: key, Value: value, Version: version, Lineage: number, Base: base}
}

func upsertHistory(t *testing.T, s *Store, history History, rows ...counter.Row) Upserted {
	t.Helper()
	upserted, err := s.UpsertHistory(t.Context(), rows, history)
	require.NoError(t, err)
	return upserted
}

func operations(t *testing.T, s *Store, key counter.Key) []counter.Record {
	t.Helper()
	all, err := s.Operations(t.Context(), key, Span{Limit: MaxBatch})
	require.NoError(t, err)
	return all
}

func TestUpsertHistoryWritesRecordsWithTheirRow(t *testing.T) {
	t.Parallel()
	s := setup(t)
	a, b := lineage("a", 3, 3, 7, 0), lineage("b", 1, 1, 8, 0)
	history := History{"a": records(a, 1)}
	upserted := upsertHistory(t, s, history, b, a) // creates the partition
	require.Empty(t, upserted.Ahead)
	require.Equal(t, history["a"], operations(t, s, "a"))
	require.Empty(t, operations(t, s, "b"))
	latest, err := s.Latest(t.Context(), "a", 2)
	require.NoError(t, err)
	require.Equal(t, history["a"][1:], latest)

	upsertHistory(t, s, history, a)
	require.Equal(t, history["a"], operations(t, s, "a"), "repeated")

	a5 := lineage("a", 5, 5, 7, 0)
	upsertHistory(t, s, History{"a": records(a5, 2)}, a5)
	all := operations(t, s, "a")
	require.Len(t, all, 5)
	require.Equal(t, history["a"], all[:3], "records that are there already stay as they are")
}

// A row of a lost future is kept out by the guard, so its records must be, too.
func TestUpsertHistoryAddsNothingIfTheGuardKeepsTheRow(t *testing.T) {
	t.Parallel()
	s := setup(t)
	has := lineage("a", 5, 5, 7, 0)
	upsertHistory(t, s, History{"a": records(has, 1)}, has)
	want := operations(t, s, "a")
	late, other := lineage("a", 9, 9, 6, 4), lineage("b", 2, 2, 6, 0)
	for range 2 { // the second time it knows that there are locks
		upserted := upsertHistory(t, s, History{"a": records(late, 5), "b": records(other, 1)}, late, other)
		require.Equal(t, has.Stored(), upserted.Ahead[0])
		require.Equal(t, want, operations(t, s, "a"))
		require.Len(t, operations(t, s, "b"), 2)
		s.expectLocks()
	}
}

func TestUpsertHistoryWritesBothOrNeither(t *testing.T) {
	t.Parallel()
	s := setup(t)
	a := lineage("a", 1, 1, 7, 0)
	bad := records(a, 1)
	bad[0].Note = "a\x00b"
	_, err := s.UpsertHistory(t.Context(), []counter.Row{a}, History{"a": bad})
	require.Equal(t, Refused, Classify(err))
	require.Zero(t, get[int](t, s, "SELECT count(*) FROM afterwrite.counters"))
}

func TestHistoryKeepsACheckpointOfDroppedDays(t *testing.T) {
	t.Parallel()
	s := setup(t)
	a := lineage("a", 4, 4, 7, 0)
	all := records(a, 1)
	today := time.Now().UTC().Truncate(day)
	for i := range all {
		all[i].At = today.Add(time.Duration(i-3)*day + time.Hour) // the last one is of today
	}
	upsertHistory(t, s, History{"a": all}, a)
	require.NoError(t, s.PrepareHistory(t.Context()))
	require.NoError(t, s.PrepareHistory(t.Context()), "they exist")
	const partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'afterwrite.operations'::regclass"
	require.Equal(t, 4+daysAhead, get[int](t, s, partitions))

	dropped, err := s.PurgeHistory(t.Context(), day, 10)
	require.NoError(t, err)
	require.Equal(t, 2, dropped)
	require.Equal(t, all[2:], operations(t, s, "a"))
	require.Equal(t, int64(2), get[int64](t, s, "SELECT version FROM afterwrite.operations_checkpoints WHERE key = 'a' AND value = 2"))
	dropped, err = s.PurgeHistory(t.Context(), day, 10)
	require.NoError(t, err)
	require.Zero(t, dropped)

	part, err := s.Operations(t.Context(), "a", Span{After: 1, From: today.Add(-2 * day), To: today, Limit: 10})
	require.NoError(t, err)
	require.Equal(t, all[2:3], part)
}

// stateAt returns the version at a time, or 0 and the earliest time that is known.
func stateAt(t *testing.T, s *Store, key counter.Key, at time.Time) (version int64, earliest time.Time) {
	t.Helper()
	past, err := s.StateAt(t.Context(), key, at)
	require.NoError(t, err)
	if past.Record == nil {
		return 0, past.Earliest
	}
	require.False(t, past.Record.At.After(at))
	require.Equal(t, past.Record.Version, past.Record.Value)
	return past.Record.Version, past.Earliest
}

func TestStateAtUsesTheCheckpointWhereDaysWereDropped(t *testing.T) {
	t.Parallel()
	s := setup(t)
	a := lineage("a", 4, 4, 7, 0)
	all := records(a, 1)
	today := time.Now().UTC().Truncate(day)
	for i := range all {
		all[i].At = today.Add(time.Duration(i-3)*day + time.Hour)
	}
	upsertHistory(t, s, History{"a": all}, a)
	for i, r := range all {
		version, _ := stateAt(t, s, "a", r.At)
		require.EqualValues(t, i+1, version)
		version, _ = stateAt(t, s, "a", r.At.Add(23*time.Hour))
		require.EqualValues(t, i+1, version)
	}
	version, earliest := stateAt(t, s, "a", all[0].At.Add(-time.Millisecond))
	require.Zero(t, version)
	require.Equal(t, all[0].At, earliest)

	_, err := s.PurgeHistory(t.Context(), day, 10)
	require.NoError(t, err)
	version, earliest = stateAt(t, s, "a", all[1].At.Add(-time.Millisecond))
	require.Zero(t, version)
	require.Equal(t, all[1].At, earliest)
	for _, at := range []time.Time{all[1].At, all[2].At.Add(-time.Millisecond)} {
		version, _ = stateAt(t, s, "a", at)
		require.EqualValues(t, 2, version, "of the checkpoint")
	}
	version, _ = stateAt(t, s, "a", all[2].At)
	require.EqualValues(t, 3, version)
	version, earliest = stateAt(t, s, "b", today)
	require.Zero(t, version)
	require.Zero(t, earliest)
}

// The tombstone of a counter with records stays, so that its versions continue if it is created again.
func TestPurgeKeepsTombstonesThatHaveRecords(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for _, key := range []counter.Key{"recorded", "checkpoint", "other"} {
		old := counter.Row{Key: key, Version: 3, Lineage: 7, Deleted: true}
		upsertHistory(t, s, History{key: records(lineage(key, 3, 3, 7, 0), 1)}, old)
	}
	exec(t, s, `INSERT INTO afterwrite.operations_checkpoints (key, version, at, deleted)
		SELECT key, version, at, true FROM afterwrite.operations WHERE version = 3`)
	exec(t, s, `DELETE FROM afterwrite.operations WHERE key <> 'recorded'`)
	exec(t, s, `DELETE FROM afterwrite.operations_checkpoints WHERE key = 'other'`)
	exec(t, s, `UPDATE afterwrite.counters SET deleted_at = now() - interval '2 hours'`)
	exec(t, s, `UPDATE afterwrite.counters SET deleted_at = now() - interval '3 hours' WHERE key = 'recorded'`)
	for i, want := range []int64{0, 1, 1, 0} { // one that is kept does not keep the others from being removed
		removed, more, err := s.Purge(t.Context(), time.Hour, 1)
		require.NoError(t, err)
		require.Equal(t, want, removed)
		require.Equal(t, i < 3, more)
	}
	require.Equal(t, "recorded", get[string](t, s, "SELECT string_agg(key, ',') FROM afterwrite.counters"))
	require.Equal(t, "recorded", get[string](t, s, "SELECT string_agg(key, ',') FROM afterwrite.operations_checkpoints"))

	exec(t, s, `DELETE FROM afterwrite.operations`) // the retention is over
	exec(t, s, `UPDATE afterwrite.counters SET deleted_at = now() - interval '2 hours'`)
	removed, _, err := s.Purge(t.Context(), time.Hour, 1)
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	require.Zero(t, get[int](t, s, "SELECT count(*) FROM afterwrite.operations_checkpoints"))
}

// The role of a worker need not own the tables, even to create and drop partitions.
func TestHistoryNeedsFewRights(t *testing.T) {
	t.Parallel()
	address, run := empty(t)
	run("CREATE ROLE history_runtime LOGIN PASSWORD 'x'")
	t.Cleanup(func() { run("DROP OWNED BY history_runtime; DROP ROLE history_runtime") })
	require.NoError(t, MigrateURL(t.Context(), address))
	s := open(t, as(t, address, "history_runtime"), Options{Recording: true})
	grants, err := s.MissingGrants(t.Context())
	require.NoError(t, err)
	require.Contains(t, grants, "GRANT SELECT, INSERT ON afterwrite.operations TO history_runtime")
	for _, grant := range grants {
		run(grant)
	}
	a := lineage("a", 1, 1, 7, 0)
	old := records(a, 1)
	old[0].At = old[0].At.Add(-2 * day)
	upsertHistory(t, s, History{"a": old}, a)
	require.NoError(t, s.PrepareHistory(t.Context()))
	dropped, err := s.PurgeHistory(t.Context(), day, 1)
	require.NoError(t, err)
	require.Equal(t, 1, dropped)
	require.Empty(t, operations(t, s, "a"))
	_, _, err = s.Purge(t.Context(), 0, 1)
	require.NoError(t, err)
}

// Every role may call a new function, and these run with the rights of their owner.
func TestHistoryCannotBeDroppedByOtherRoles(t *testing.T) {
	t.Parallel()
	address, run := empty(t)
	run("CREATE ROLE history_reader LOGIN PASSWORD 'x'")
	t.Cleanup(func() { run("DROP OWNED BY history_reader; DROP ROLE history_reader") })
	require.NoError(t, MigrateURL(t.Context(), address))
	owner := open(t, address, Options{Recording: true})
	a := lineage("a", 1, 1, 7, 0)
	old := records(a, 1)
	old[0].At = old[0].At.Add(-2 * day)
	upsertHistory(t, owner, History{"a": old}, a)
	run("GRANT USAGE ON SCHEMA afterwrite TO history_reader; GRANT SELECT ON ALL TABLES IN SCHEMA afterwrite TO history_reader")
	reader := open(t, as(t, address, "history_reader"), Options{Recording: true})
	_, err := reader.PurgeHistory(t.Context(), day, 1)
	require.ErrorContains(t, err, "permission denied for table operations: role history_reader may not insert")
	require.Error(t, reader.PrepareHistory(t.Context()))
	require.Len(t, operations(t, owner, "a"), 1)

	// Nor does anybody drop a day that has not ended.
	_, err = owner.PurgeHistory(t.Context(), -2*day, 1)
	require.NoError(t, err)
	run("SELECT afterwrite.operations_drop((now() AT TIME ZONE 'UTC')::date + 1, NULL)")
	require.NoError(t, owner.PrepareHistory(t.Context()))
	run("SELECT afterwrite.operations_drop((now() AT TIME ZONE 'UTC')::date, NULL)")
	const today = "SELECT count(*) FROM pg_class WHERE relname = 'operations_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')"
	require.Equal(t, 1, get[int](t, owner, today))
}

// Each call for a day is short, however many keys and records the day has.
func TestHistoryKeepsTheStatesOfManyKeys(t *testing.T) {
	t.Parallel()
	s := setup(t)
	old := time.Now().UTC().Truncate(day).Add(-3 * day)
	require.NoError(t, s.createPartition(t.Context(), old))
	exec(t, s, `INSERT INTO afterwrite.operations (key, version, lineage, day, at, operation, amount, value)
		SELECT 'k' || k, n, 7, $1::date, $1::date, 'increment', 1, n FROM generate_series(1, 25000) k, generate_series(1, 3) n`,
		old.Format(time.DateOnly))
	dropped, err := s.PurgeHistory(t.Context(), day, 10)
	require.NoError(t, err)
	require.Equal(t, 1, dropped)
	require.Equal(t, 25_000, get[int](t, s, "SELECT count(*) FROM afterwrite.operations_checkpoints WHERE version = 3 AND value = 3"))
	require.Zero(t, get[int](t, s, "SELECT count(*) FROM afterwrite.operations"))
}

// A counter that was set aside for longer than the retention may be flushed while its day is dropped.
func TestRecordOfADayThatIsBeingDroppedIsNotLost(t *testing.T) {
	t.Parallel()
	s := setup(t)
	old := time.Now().UTC().Truncate(day).Add(-3 * day)
	history := make(History)
	for _, key := range []counter.Key{"a", "z"} {
		history[key] = records(lineage(key, 1, 1, 7, 0), 1)
		history[key][0].At = old
	}
	z := lineage("z", 1, 1, 7, 0)
	upsertHistory(t, s, history, z)

	tx, err := s.db.BeginTxx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	drop := func(after *string) (last *string) {
		require.NoError(t, tx.GetContext(t.Context(), &last, s.sql.dropPartition, old.Format(time.DateOnly), after))
		return last
	}
	last := drop(nil)
	require.Equal(t, "z", *last)
	a := lineage("a", 1, 1, 7, 0)
	upserted, err := s.UpsertHistory(t.Context(), []counter.Row{a}, history)
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"a"}, upserted.Locked)
	require.Nil(t, drop(last))
	require.NoError(t, tx.Commit())

	upsertHistory(t, s, history, a)
	require.Equal(t, history["a"], operations(t, s, "a"))
	require.Equal(t, 1, get[int](t, s, "SELECT count(*) FROM afterwrite.operations_checkpoints"))
}

// ANALYZE takes this lock. Nothing is wrong with the rows, so none may become a dead letter.
func TestRowWhosePartitionCannotBeCreatedIsNotRefused(t *testing.T) {
	t.Parallel()
	s := setup(t)
	tx, err := s.db.BeginTxx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), "LOCK TABLE afterwrite.operations IN SHARE UPDATE EXCLUSIVE MODE")
	require.NoError(t, err)
	a := lineage("a", 1, 1, 7, 0)
	history := History{"a": records(a, 1)}
	_, err = s.UpsertHistory(t.Context(), []counter.Row{a}, history)
	require.Equal(t, Outage, Classify(err), err)
	require.NoError(t, tx.Rollback())
	upsertHistory(t, s, history, a)
	require.Len(t, operations(t, s, "a"), 1)
}

// The functions run with the rights of their owner. In a schema such as public other roles may be allowed to create functions, which would
// be called instead of those of Postgres if their parameters fit better.
func TestHistoryCallsNoFunctionsOfOthers(t *testing.T) {
	t.Parallel()
	s := setup(t)
	exec(t, s, `CREATE FUNCTION afterwrite.to_char(date, text) RETURNS text LANGUAGE sql AS $$ SELECT 'other' $$`)
	exec(t, s, `CREATE FUNCTION afterwrite.format(text, text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'other' $$`)
	require.NoError(t, s.PrepareHistory(t.Context()))
	require.Equal(t, 1+daysAhead, get[int](t, s, `SELECT count(*) FROM pg_class WHERE relname ~ '^operations_[0-9]{8}$'`))
}

// The functions of the first version of histories are replaced, and days that they made are dropped as others are.
func TestHistoryOfTheFirstVersionIsKept(t *testing.T) {
	t.Parallel()
	address := localtest.PostgresURL(t, nil)
	db, err := openForMigrations(address, DefaultSchema)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	applied, err := migrate(t.Context(), db, DefaultSchema, func(p *goose.Provider, ctx context.Context) ([]*goose.MigrationResult, error) {
		return p.UpTo(ctx, 4)
	})
	require.NoError(t, err)
	require.Len(t, applied, 4)
	for _, statement := range []string{
		"SELECT afterwrite.operations_create((now() AT TIME ZONE 'UTC')::date - 3)",
		`INSERT INTO afterwrite.operations (key, version, lineage, day, at, operation, amount, value)
			SELECT 'a', n, 7, (now() AT TIME ZONE 'UTC')::date - 3, now() - interval '3 days', 'increment', 1, n FROM generate_series(1, 3) n`,
	} {
		_, err = db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}

	require.NoError(t, MigrateURL(t.Context(), address))
	s := open(t, address, Options{Recording: true})
	require.Len(t, operations(t, s, "a"), 3)
	dropped, err := s.PurgeHistory(t.Context(), day, 10)
	require.NoError(t, err)
	require.Equal(t, 1, dropped)
	require.Equal(t, int64(3), get[int64](t, s, "SELECT value FROM afterwrite.operations_checkpoints WHERE key = 'a'"))

	_, err = migrate(t.Context(), db, DefaultSchema, func(p *goose.Provider, ctx context.Context) ([]*goose.MigrationResult, error) {
		return p.DownTo(ctx, 3)
	})
	require.NoError(t, err)
	require.NoError(t, MigrateURL(t.Context(), address), "again from nothing")
}
