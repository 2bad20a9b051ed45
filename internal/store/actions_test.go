package store

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestActionsAreListedNewestFirst(t *testing.T) {
	t.Parallel()
	s := setup(t)
	first, err := s.BeginAction(t.Context(), "ann", "redrive", "a")
	require.NoError(t, err)
	second, err := s.BeginAction(t.Context(), "bob", "discard", "b")
	require.NoError(t, err)
	require.NoError(t, s.EndAction(t.Context(), first, "redriven: 1", false))

	all, err := s.Actions(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, second, all[0].ID)
	require.Nil(t, all[0].Outcome, "it is in progress")
	require.Equal(t, "redriven: 1", *all[1].Outcome)
	require.Equal(t, "ann", all[1].Who)

	older, err := s.Actions(t.Context(), second, 10)
	require.NoError(t, err)
	require.Len(t, older, 1)
	one, found, err := s.Action(t.Context(), first)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "a", one.Target)
	_, found, err = s.Action(t.Context(), second+1)
	require.NoError(t, err)
	require.False(t, found)
	_, err = s.Actions(t.Context(), 0, MaxActionsPage+1)
	require.ErrorIs(t, err, ErrInvalid)
}

func TestOldActionsAreDeletedByNumberAndByAge(t *testing.T) {
	t.Parallel()
	s := setup(t)
	exec(t, s, `INSERT INTO counters_actions (who, what, target) SELECT 'x', 'x', '' FROM generate_series(1, 10000)`)
	exec(t, s, `UPDATE counters_actions SET at = now() - interval '91 days' WHERE id BETWEEN 9000 AND 9099`)
	_, err := s.BeginAction(t.Context(), "ann", "redrive", "a")
	require.NoError(t, err)
	require.Equal(t, 10000-100, get[int](t, s, "SELECT count(*) FROM counters_actions"))
	require.Equal(t, 2, get[int](t, s, "SELECT min(id) FROM counters_actions"))
}

func TestMissingActionsTableDoesNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	s := setup(t)
	exec(t, s, `DROP TABLE counters_actions`)
	for range failuresToOpen + 1 {
		_, err := s.Actions(t.Context(), 0, 10)
		require.Equal(t, Operator, Classify(err), "%v", err)
		_, err = s.BeginAction(t.Context(), "ann", "redrive", "a")
		require.Equal(t, Operator, Classify(err), "%v", err)
		require.Equal(t, Operator, Classify(s.EndAction(t.Context(), 1, "", false)))
		_, _, err = s.Action(t.Context(), 1)
		require.Equal(t, Operator, Classify(err), "%v", err)
	}
	require.True(t, s.Available())
	require.True(t, s.Up())
	upsert(t, s, row("k", 1, 1))

	exec(t, s, `DROP TABLE counters`)
	for range failuresToOpen {
		_, err := s.Read(t.Context(), []counter.Key{"k"})
		require.Equal(t, Operator, Classify(err), "%v", err)
	}
	require.False(t, s.Available(), "a missing table of counters opens it")
}

func TestActionsAcceptAnyText(t *testing.T) {
	t.Parallel()
	s := setup(t)
	id, err := s.BeginAction(t.Context(), "a\x00b", "\xff", strings.Repeat("ä", 5000))
	require.NoError(t, err)
	one, found, err := s.Action(t.Context(), id)
	require.NoError(t, err)
	require.True(t, found)
	require.LessOrEqual(t, len(one.Target), maxActionText)
	require.True(t, utf8.ValidString(one.Target))
}
