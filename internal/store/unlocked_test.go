package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// lockingClient opens a transaction that runs statement and keeps its locks until the test ends or rollback is called.
func lockingClient(t *testing.T, s *Store, statement string, args ...any) (rollback func()) {
	t.Helper()
	tx, err := s.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	rollback = func() { _ = tx.Rollback() }
	t.Cleanup(rollback)
	_, err = tx.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err)
	return rollback
}

const lockRows = "SELECT FROM counters WHERE key = ANY ($1) FOR UPDATE"

// upsertUnlocked returns the keys that were locked, sorted. No row may be ahead.
func upsertUnlocked(t *testing.T, s *Store, rows ...counter.Row) []counter.Key {
	t.Helper()
	upserted, err := s.UpsertUnlocked(t.Context(), rows)
	ahead, locked := upserted.Ahead, upserted.Locked
	require.NoError(t, err)
	require.Empty(t, ahead)
	slices.Sort(locked)
	return locked
}

// numbered returns n rows with this version.
func numbered(n int, version int64) []counter.Row {
	rows := make([]counter.Row, n)
	for i := range rows {
		rows[i] = row(fmt.Sprintf("k%04d", i), version*10, version)
	}
	return rows
}

func TestUpsertUnlockedWithoutLocksIsUpsert(t *testing.T) {
	t.Parallel()
	s := setup(t)
	require.Empty(t, upsertUnlocked(t, s))
	require.Empty(t, upsertUnlocked(t, s, row("b", 1, 5), row("a", 2, 1)))
	has(t, s, row("a", 2, 1), row("b", 1, 5))

	upserted, err := s.UpsertUnlocked(t.Context(), []counter.Row{row("a", 3, 2), row("b", 0, 4)})
	ahead, locked := upserted.Ahead, upserted.Locked
	require.NoError(t, err)
	require.Empty(t, locked)
	require.Equal(t, []counter.Row{row("b", 1, 5)}, ahead)

	_, err = s.UpsertUnlocked(t.Context(), []counter.Row{row("a", 1, 1), row("a", 2, 2)})
	require.ErrorIs(t, err, ErrInvalid)
}

func TestUpsertUnlockedWritesUnlockedRowsAndReturnsTheOthers(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, numbered(100, 1)...)
	rollback := lockingClient(t, s, lockRows, pq.Array([]string{"k0003", "k0050"}))

	rows := append(numbered(100, 2), tombstone("new", 1))
	for range 2 * failuresToOpen { // from the second call on, the Store expects locks
		require.Equal(t, []counter.Key{"k0003", "k0050"}, upsertUnlocked(t, s, rows...))
		for i := range rows {
			rows[i].Version++
		}
	}
	require.True(t, s.Available(), "row locks are not an outage")
	require.True(t, s.Up())
	require.Equal(t, 99, get[int](t, s, "SELECT count(*) FROM counters WHERE version > 1 OR key = 'new' AND version > 0"))
	has(t, s, row("k0003", 10, 1), row("k0050", 10, 1))

	rollback()
	require.Empty(t, upsertUnlocked(t, s, rows...))
	has(t, s, rows...)
}

func TestUpsertUnlockedWritesARowThatIsUnlockedMeanwhile(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, numbered(3, 1)...)
	s.expectLocks()

	// The holder unlocks the row when pg_locks shows a waiting transaction. On a busy machine the wait may have timed out before:
	// hence the repetitions.
	for version := int64(2); version < 50; version++ {
		rollback := lockingClient(t, s, lockRows, pq.Array([]string{"k0001"}))
		done := make(chan []counter.Key, 1)
		go func() {
			upserted, err := s.UpsertUnlocked(context.WithoutCancel(t.Context()), numbered(3, version))
			locked := upserted.Locked
			if err != nil {
				locked = []counter.Key{counter.Key(err.Error())}
			}
			done <- locked
		}()
		for len(done) == 0 && get[int](t, s, "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN "+
			"(SELECT pid FROM pg_stat_activity WHERE datname = current_database())") == 0 {
			require.NoError(t, t.Context().Err())
		}
		rollback()
		if locked := <-done; len(locked) == 0 {
			has(t, s, numbered(3, version)...)
			return
		}
	}
	require.Fail(t, "the row was never written")
}

func TestUpsertUnlockedReturnsRowsAheadDespiteLocks(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, row("ahead", 7, 7), row("held", 1, 1), row("old", 1, 1), row("same", 2, 2))
	lockingClient(t, s, lockRows, pq.Array([]string{"held"}))

	upserted, err := s.UpsertUnlocked(t.Context(),
		[]counter.Row{row("ahead", 6, 6), row("held", 2, 2), row("old", 2, 2), row("same", 2, 2)})
	ahead, locked := upserted.Ahead, upserted.Locked
	require.NoError(t, err)
	require.Equal(t, []counter.Key{"held"}, locked)
	require.Equal(t, []counter.Row{row("ahead", 7, 7), row("same", 2, 2)}, ahead)
	has(t, s, row("ahead", 7, 7), row("held", 1, 1), row("old", 2, 2), row("same", 2, 2))
}

// A row that another transaction is inserting is not visible, but an INSERT waits for it.
func TestUpsertUnlockedFindsRowsThatAnotherTransactionInserts(t *testing.T) {
	t.Parallel()
	s := setup(t)
	rows := numbered(64, 1)
	rollback := lockingClient(t, s, "INSERT INTO counters (key, value, version, updated_at) VALUES ('k0007', 0, 0, now()), ('k0040', 0, 0, now())")
	require.Equal(t, []counter.Key{"k0007", "k0040"}, upsertUnlocked(t, s, rows...))
	require.Equal(t, 62, get[int](t, s, "SELECT count(*) FROM counters"))

	rollback()
	require.Empty(t, upsertUnlocked(t, s, rows[7], rows[40]))
	has(t, s, rows...)
}

func TestUpsertUnlockedFailsIfTheTableIsLocked(t *testing.T) {
	t.Parallel()
	holder := setup(t)
	s := open(t, holder.url, Options{StatementTimeout: 400 * time.Millisecond})
	lockingClient(t, holder, "LOCK TABLE counters IN EXCLUSIVE MODE")
	_, err := s.UpsertUnlocked(t.Context(), numbered(100, 1))
	require.True(t, IsLocked(err), "%v", err)
	require.Equal(t, Outage, Classify(err))
}

func TestUpsertUnlockedReportsARefusedRowDespiteLocks(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, row("held", 1, 1))
	lockingClient(t, s, lockRows, pq.Array([]string{"held"}))
	_, err := s.UpsertUnlocked(t.Context(), []counter.Row{row("held", 2, 2), row("negative version", 1, -1)})
	require.Equal(t, Refused, Classify(err), "%v", err)
	require.Equal(t, "23514", sqlState(err))
}

func TestUpsertUnlockedDoesNotChangeTheSessionsLockTimeout(t *testing.T) {
	t.Parallel()
	holder := setup(t)
	upsert(t, holder, row("held", 1, 1))
	s := open(t, holder.url, Options{MaxConns: 1})
	lockingClient(t, holder, lockRows, pq.Array([]string{"held"}))
	require.Equal(t, []counter.Key{"held"}, upsertUnlocked(t, s, row("held", 2, 2), row("free", 1, 1)))
	require.Equal(t, "1s", get[string](t, s, "SHOW lock_timeout"))
}

// Three clients keep locking 40 of 1,000 rows for 50 ms each.
func TestAllRowsAreWrittenAfterManyShortLocks(t *testing.T) {
	t.Parallel()
	const keys, clients, versions = 1000, 3, 10
	s := setup(t)
	upsert(t, s, numbered(keys, 1)...)
	var stop atomic.Bool
	var group sync.WaitGroup
	failed := make(chan error, clients)
	for range clients {
		group.Go(func() {
			for !stop.Load() {
				if err := holdSome(t.Context(), s.db.DB, rand.Perm(keys)[:40]); err != nil { //nolint:gosec // which rows needs no secret
					failed <- err
					return
				}
			}
		})
	}
	deferred := map[counter.Key]bool{}
	for version := int64(2); version <= versions; version++ {
		upserted, err := s.UpsertUnlocked(t.Context(), numbered(keys, version))
		locked := upserted.Locked
		require.NoError(t, err)
		clear(deferred)
		for _, key := range locked {
			deferred[key] = true
		}
		require.Less(t, len(deferred), keys/2, "most rows are written while clients hold some")
	}
	stop.Store(true)
	group.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	require.Empty(t, upsertUnlocked(t, s, slices.DeleteFunc(numbered(keys, versions), func(r counter.Row) bool { return !deferred[r.Key] })...))
	has(t, s, numbered(keys, versions)...)
}

// holdSome locks rows for 50 ms. It ignores deadlocks with other clients.
func holdSome(ctx context.Context, db *sql.DB, numbers []int) error {
	names := make([]string, len(numbers))
	for i, n := range numbers {
		names[i] = fmt.Sprintf("k%04d", n)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "SELECT FROM counters WHERE key = ANY ($1) FOR UPDATE", pq.Array(names))
	if err == nil {
		_, err = tx.ExecContext(ctx, "SELECT pg_sleep(0.05)")
	}
	if class := Classify(err); class == Contended || IsLocked(err) {
		err = nil
	}
	if rollbackErr := tx.Rollback(); err == nil {
		err = rollbackErr
	}
	return err
}

// Two workers upsert overlapping batches while a client locks the same rows one by one in the opposite order.
func TestBatchesSucceedWhileAClientLocksInTheOppositeOrder(t *testing.T) {
	t.Parallel()
	const keys, batches = 200, 15
	first := setup(t)
	stores := []*Store{first, open(t, first.url, Options{})}
	upsert(t, first, numbered(keys, 1)...)

	var stop atomic.Bool
	var clients, workers sync.WaitGroup
	failed := make(chan error, len(stores)+1)
	clients.Go(func() {
		for !stop.Load() {
			if err := lockBackwards(t.Context(), first.db.DB, keys); err != nil {
				failed <- err
				return
			}
		}
	})
	for w, s := range stores {
		workers.Go(func() {
			for n := range batches {
				rows := numbered(keys, int64(2+n*len(stores)+w))[w*keys/4 : keys-(1-w)*keys/4]
				if err := untilWritten(t.Context(), s, rows); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	workers.Wait()
	stop.Store(true)
	clients.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	last := int64(2 + batches*len(stores) - 1)
	has(t, first, append(numbered(keys*3/4, last-1)[:keys/4], numbered(keys, last)[keys/4:]...)...)
}

// untilWritten upserts rows until all of them are written.
func untilWritten(ctx context.Context, s *Store, rows []counter.Row) error {
	for len(rows) > 0 {
		upserted, err := s.UpsertUnlocked(ctx, rows)
		locked := upserted.Locked
		if err != nil {
			return err
		}
		rows = slices.DeleteFunc(slices.Clone(rows), func(r counter.Row) bool { return !slices.Contains(locked, r.Key) })
	}
	return nil
}

func lockBackwards(ctx context.Context, db *sql.DB, keys int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for n := keys - 1; n >= 0 && err == nil; n -= 5 {
		_, err = tx.ExecContext(ctx, "SELECT FROM counters WHERE key = $1 FOR UPDATE", fmt.Sprintf("k%04d", n))
	}
	if class := Classify(err); class == Contended || IsLocked(err) {
		err = nil // Postgres may cancel this transaction because of a deadlock
	}
	return errors.Join(err, tx.Rollback())
}
