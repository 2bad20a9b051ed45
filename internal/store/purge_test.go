package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestPurgeDeletesOnlyOldTombstonesUpToTheLimit(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for i := range 5 {
		upsert(t, s, tombstone(fmt.Sprint("old", i), 1))
	}
	exec(t, s, "UPDATE counters SET deleted_at = now() - interval '2 hours'")
	upsert(t, s, tombstone("young", 1), row("live", 1, 1))
	exec(t, s, "UPDATE counters SET updated_at = now() - interval '1 year' WHERE key = 'live'")

	for _, want := range []int64{3, 2, 0} {
		removed, more, err := s.Purge(t.Context(), time.Hour, 3)
		require.NoError(t, err)
		require.Equal(t, want, removed)
		require.Equal(t, want == 3, more)
	}
	has(t, s, tombstone("young", 1), row("live", 1, 1))
	require.Equal(t, 2, get[int](t, s, "SELECT count(*) FROM counters"))

	for _, limit := range []int{0, -1, MaxBatch + 1} {
		_, _, err := s.Purge(t.Context(), time.Hour, limit)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

func TestPurgeDoesNotWaitForLockedTombstones(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, tombstone("coming back", 1), tombstone("gone", 1))

	tx, err := s.db.BeginTxx(t.Context(), nil)
	require.NoError(t, err)
	back := []counter.Row{row("coming back", 1, 2)}
	_, err = tx.ExecContext(t.Context(), s.sql.upsert, upsertArgs(back)...)
	require.NoError(t, err)

	removed, _, err := s.Purge(soon(t, 5*time.Second), 0, 10)
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)

	require.NoError(t, tx.Commit())
	has(t, s, row("coming back", 1, 2))
}
