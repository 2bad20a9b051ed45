package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestLandingComparesACounterWithItsColumn(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	text := func(s string) *string { return &s }
	deleted := later("post:4:likes", 0, 9)
	deleted.Deleted = true
	gone := deleted
	gone.Key = "post:99:likes"
	day := deleted
	day.Key = "views:7:2026-11-29"
	upsertMapped(t, s, later("post:1:likes", 5, 5), later("post:2:likes", 5, 5), later("post:3:likes", 7, 5), deleted, gone,
		later("views:8:2026-11-29", 6, 2), later("post:98:likes", 5, 5), later("post:5:views", 3, 1))
	upsertMapped(t, s, later("views:7:2026-11-29", 6, 2))
	upsertMapped(t, s, day)
	exec(t, s, "UPDATE posts SET likes = 77 WHERE id = 2; UPDATE posts SET likes = 1234 WHERE id = 6; UPDATE posts SET views = NULL WHERE id = 5")
	exec(t, s, "UPDATE stats.daily_views SET views = 6.5 WHERE post_id = 8")
	for key, want := range map[string]struct {
		row                     string
		counted, exists, agrees bool
		column                  *string
	}{
		"post:1:likes":       {"public.posts (id = 1)", true, true, true, text("5")},
		"post:2:likes":       {"public.posts (id = 2)", true, true, false, text("77")},
		"post:4:likes":       {"public.posts (id = 4)", true, true, true, text("0")},
		"post:5:views":       {"public.posts (id = 5)", true, true, false, nil},
		"post:6:likes":       {"public.posts (id = 6)", false, true, false, text("1234")},
		"post:97:likes":      {"public.posts (id = 97)", false, false, false, nil},
		"post:98:likes":      {"public.posts (id = 98)", true, false, false, nil},
		"post:99:likes":      {"public.posts (id = 99)", true, false, true, nil},
		"views:7:2026-11-29": {"stats.daily_views (day = 2026-11-29, kind = 'page', post_id = 7)", true, true, true, nil},
		"views:8:2026-11-29": {"stats.daily_views (day = 2026-11-29, kind = 'page', post_id = 8)", true, true, false, text("6.5")},
	} {
		landing, found, err := s.Landing(t.Context(), counter.Key(key))
		require.NoError(t, err, key)
		require.True(t, found, key)
		require.Equal(t, Landing{
			Mapping: landing.Mapping, Row: want.row, Counted: want.counted, Exists: want.exists, Column: want.column, Agrees: want.agrees,
		}, landing, key)
	}
	_, found, err := s.Landing(t.Context(), "other")
	require.NoError(t, err)
	require.False(t, found)
}

func TestLandingOnABrokenTableIsNoOutage(t *testing.T) {
	t.Parallel()
	s := setupMapped(t)
	upsertMapped(t, s, later("post:1:likes", 5, 5))
	exec(t, s, "ALTER TABLE posts DROP COLUMN likes")
	for range failuresToOpen + 1 {
		landing, found, err := s.Landing(t.Context(), "post:1:likes")
		require.True(t, found)
		require.Equal(t, "likes", landing.Mapping.Name)
		require.Equal(t, "public.posts (id = 1)", landing.Row)
		require.ErrorContains(t, err, "mapping likes: pq: column t.likes does not exist")
		require.Equal(t, Operator, Classify(err))
	}
	require.True(t, s.Up())
	has(t, s, counter.Row{Key: "post:1:likes", Value: 5, Version: 5, Lineage: 1})
}
