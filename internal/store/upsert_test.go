package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestUpsertWritesNewRowsAndReplacesOlderOnes(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, row("a", 1, 1), row("b", -5, 3))
	upsert(t, s, row("b", 7, 4), row("c", 0, 0), row("a", 2, 9))
	has(t, s, row("a", 2, 9), row("b", 7, 4), row("c", 0, 0))
}

func TestEmptyBatchesNeedNoServer(t *testing.T) {
	t.Parallel()
	s := open(t, "postgres://nobody@127.0.0.1:1/none", Options{})
	upsert(t, s)
	rows, err := s.Read(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, rows)
}

func TestUpsertNeverReplacesANewerRow(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, row("new", 50, 5), row("old", 1, 1))

	ahead, err := s.Upsert(t.Context(), []counter.Row{row("new", 40, 4), row("old", 2, 2), row("other", 1, 1)})
	require.NoError(t, err)
	require.Equal(t, []counter.Row{row("new", 50, 5)}, ahead)
	has(t, s, row("new", 50, 5), row("old", 2, 2), row("other", 1, 1))
}

func TestUpsertReportsTheSameVersionAsAhead(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, row("a", 1, 5), row("b", 2, 5))

	again, err := s.Upsert(t.Context(), []counter.Row{row("a", 1, 5), row("b", 2, 5)})
	require.NoError(t, err)
	require.Equal(t, []counter.Row{row("a", 1, 5), row("b", 2, 5)}, again, "a repeated batch changes nothing")

	other, err := s.Upsert(t.Context(), []counter.Row{row("a", 100, 5), row("b", 3, 6)})
	require.NoError(t, err)
	require.Equal(t, []counter.Row{row("a", 1, 5)}, other, "another state of the same version")
	has(t, s, row("a", 1, 5), row("b", 3, 6))
}

func TestTombstonesKeepTheirVersionAndHaveNoValue(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, row("k", 9, 1))
	upsert(t, s, counter.Row{Key: "k", Value: 9, Version: 2, Deleted: true})
	has(t, s, tombstone("k", 2))
	require.True(t, get[bool](t, s, "SELECT deleted_at = updated_at AND deleted_at > now() - interval '1 minute' FROM counters"))

	late, err := s.Upsert(t.Context(), []counter.Row{row("k", 9, 1)})
	require.NoError(t, err)
	require.Equal(t, []counter.Row{tombstone("k", 2)}, late, "a late flush does not replace the tombstone")

	upsert(t, s, row("k", 1, 3))
	has(t, s, row("k", 1, 3))
	require.True(t, get[bool](t, s, "SELECT deleted_at IS NULL FROM counters"))
}

func TestUpsertRefusesDuplicateKeysAndLargeBatches(t *testing.T) {
	t.Parallel()
	s := setup(t)
	_, err := s.Upsert(t.Context(), []counter.Row{row("a", 1, 1), row("b", 1, 1), row("a", 2, 2)})
	require.ErrorIs(t, err, ErrInvalid)
	require.Equal(t, Refused, Classify(err))

	rows := make([]counter.Row, MaxBatch+1)
	keys := make([]counter.Key, MaxBatch+1)
	for i := range rows {
		keys[i] = counter.Key(fmt.Sprint("k", i))
		rows[i] = counter.Row{Key: keys[i], Version: 1}
	}
	_, err = s.Upsert(t.Context(), rows)
	require.ErrorIs(t, err, ErrInvalid)
	_, err = s.Read(t.Context(), keys)
	require.ErrorIs(t, err, ErrInvalid)

	upsert(t, s, rows[:MaxBatch]...)
	got, err := s.Read(t.Context(), keys[:MaxBatch])
	require.NoError(t, err)
	require.Len(t, got, MaxBatch)
}

func TestUpsertDoesNotChangeTheCallersRows(t *testing.T) {
	t.Parallel()
	s := setup(t)
	rows := []counter.Row{row("b", 1, 1), row("a", 1, 1)}
	before := slices.Clone(rows)
	upsert(t, s, rows...)
	require.Equal(t, before, rows)
}

// Two batches that lock the same rows in opposite orders would deadlock, also with new rows.
func TestConcurrentUpsertsInOppositeOrdersDoNotDeadlock(t *testing.T) {
	t.Parallel()
	s := setup(t)
	const workers, rounds, keys = 6, 15, 400
	var group sync.WaitGroup
	failed := make(chan error, workers*rounds)
	for w := range workers {
		group.Go(func() {
			for round := range rounds {
				rows := make([]counter.Row, keys)
				for i := range rows {
					rows[i] = row(fmt.Sprint("k", round/3, "-", i*7919%keys), int64(w), int64(round*workers+w+1))
				}
				if w%2 == 1 {
					slices.Reverse(rows)
				}
				if _, err := s.Upsert(t.Context(), rows); err != nil {
					failed <- err
				}
			}
		})
	}
	group.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	exec(t, s, "SELECT pg_stat_force_next_flush()")
	require.Zero(t, get[int](t, s, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))
}

func TestRefusedRows(t *testing.T) {
	t.Parallel()
	s := setup(t)
	exec(t, s, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		CASE NEW.key
		WHEN 'raise' THEN RAISE EXCEPTION 'no';
		WHEN 'own code' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'AW001';
		WHEN 'swallow' THEN RETURN NULL;
		ELSE RETURN NEW;
		END CASE;
	END $$`)
	exec(t, s, "CREATE TRIGGER refuse BEFORE INSERT ON counters FOR EACH ROW EXECUTE FUNCTION refuse()")

	for _, tc := range []struct {
		name string
		bad  counter.Row
		code string
	}{
		{"a CHECK constraint", row("negative version", 1, -1), "23514"},
		{"a trigger that raises", row("raise", 1, 1), "P0001"},
		{"a trigger with a code of its own", row("own code", 1, 1), "AW001"},
		{"a trigger that drops the row", row("swallow", 1, 1), ""},
		{"a key that is not UTF-8", row("\xff", 1, 1), "22021"},
		{"a key with a NUL", row("a\x00b", 1, 1), "22021"},
	} {
		_, err := s.Upsert(t.Context(), []counter.Row{row("good", 1, 1), tc.bad})
		require.Error(t, err, tc.name)
		require.Equal(t, Refused, Classify(err), "%s: %v", tc.name, err)
		require.Equal(t, tc.code, sqlState(err), tc.name)
		require.Equal(t, tc.code == "", errors.Is(err, ErrNotStored), tc.name)
	}
	require.True(t, s.Available(), "a refusal does not open the breaker")
	require.True(t, s.Up())
}

func TestUpsertRetriesAfterADeadlock(t *testing.T) {
	t.Parallel()
	s := setup(t)
	// A rollback does not reset a sequence.
	exec(t, s, "CREATE SEQUENCE attempts")
	exec(t, s, `CREATE FUNCTION contend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF nextval('attempts') <= NEW.value THEN RAISE EXCEPTION 'again' USING ERRCODE = '40P01'; END IF;
		RETURN NEW;
	END $$`)
	exec(t, s, "CREATE TRIGGER contend BEFORE INSERT ON counters FOR EACH ROW EXECUTE FUNCTION contend()")

	upsert(t, s, row("k", 3, 1))
	has(t, s, row("k", 3, 1))

	exec(t, s, "ALTER SEQUENCE attempts RESTART")
	_, err := s.Upsert(t.Context(), []counter.Row{row("k2", 4, 1)})
	require.Equal(t, Contended, Classify(err), "%v", err)
	require.NotNil(t, pq.As(err, "40P01"))
	require.Equal(t, maxTries, get[int](t, s, "SELECT last_value FROM attempts"))
	require.True(t, s.Available())
}
