package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// setupTop returns a Store whose database has the index for Top.
func setupTop(t *testing.T) *Store {
	t.Helper()
	s := setup(t)
	created, err := CreateTopIndex(t.Context(), s.url, DefaultSchema)
	require.NoError(t, err)
	require.True(t, created)
	return s
}

func TestTopReturnsTheLargestCountersFirst(t *testing.T) {
	t.Parallel()
	s := setupTop(t)
	upsert(t, s, row("a:1", 5, 1), row("a:2", -3, 1), row("a:3", 7, 1), row("a:é", 5, 1), row("b:1", 100, 1), row("b:2", 5, 1), tombstone("a:4", 9))
	for _, c := range []struct {
		prefix string
		n      int
		want   []counter.Key
	}{
		{"", 3, []counter.Key{"b:1", "a:3", "a:1"}},
		{"", 100, []counter.Key{"b:1", "a:3", "a:1", "a:é", "b:2", "a:2"}},
		{"a:", 3, []counter.Key{"a:3", "a:1", "a:é"}},
		{"a:", MaxTop, []counter.Key{"a:3", "a:1", "a:é", "a:2"}},
		{"c", 10, nil},
	} {
		keys, complete, err := s.Top(t.Context(), c.prefix, c.n)
		require.NoError(t, err)
		require.True(t, complete)
		require.Equal(t, c.want, keys, "%d of %q", c.n, c.prefix)
	}
	for _, n := range []int{0, -1, MaxTop + 1} {
		_, _, err := s.Top(t.Context(), "", n)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

// high: has the largest values, low: the smallest. Both have more rows than Top sorts.
func TestTopOfALargePrefixReadsABoundedNumberOfRows(t *testing.T) {
	t.Parallel()
	s := setupTop(t)
	exec(t, s, `INSERT INTO counters SELECT p || lpad(n::text, 8, '0'), v + n, 1, NULL, now(), 0, 0
		FROM (VALUES ('high:', 1000000, 150000), ('low:', 0, 110000), ('mid:', 500000, 20000)) AS of (p, v, rows), generate_series(0, rows - 1) AS n`)
	exec(t, s, "VACUUM ANALYZE counters")

	keys, complete, err := s.Top(t.Context(), "high:", 2)
	require.NoError(t, err)
	require.True(t, complete)
	require.Equal(t, []counter.Key{"high:00149999", "high:00149998"}, keys)

	keys, complete, err = s.Top(t.Context(), "mid:", 2)
	require.NoError(t, err)
	require.True(t, complete, "it has fewer rows than are sorted")
	require.Equal(t, []counter.Key{"mid:00019999", "mid:00019998"}, keys)

	upsert(t, s, row("low:00000000", 2_000_000, 2))
	keys, complete, err = s.Top(t.Context(), "low:", 2)
	require.NoError(t, err)
	require.False(t, complete)
	require.Equal(t, []counter.Key{"low:00000000"}, keys)

	for _, n := range []int{1, 10, MaxTop} {
		plan := explainPlan(t, s, s.sql.largest, n, "", endOf(""), n)
		require.Contains(t, plan, TopIndex)
		require.NotContains(t, plan, "Sort")
		plan = explainPlan(t, s, s.sql.largest, largestRows, "low:", endOf("low:"), n)
		require.Contains(t, plan, TopIndex)
		require.NotContains(t, plan, "Sort")
		plan = explainPlan(t, s, s.sql.sorted, fewRows, "low:", endOf("low:"), n)
		require.Contains(t, plan, "Index Scan using counters_pkey")
		require.NotContains(t, plan, "Seq Scan")
	}
}

func explainPlan(t *testing.T, s *Store, query string, args ...any) string {
	t.Helper()
	var lines []string
	require.NoError(t, s.db.SelectContext(t.Context(), &lines, "EXPLAIN (COSTS OFF) "+query, args...))
	return strings.Join(lines, "\n")
}

func TestIndexForTopIsCreatedOnceAndReplacedIfInvalid(t *testing.T) {
	t.Parallel()
	s := setup(t)
	state := func() IndexState {
		state, err := s.TopIndexState(t.Context())
		require.NoError(t, err)
		return state
	}
	require.Equal(t, IndexMissing, state())
	var group sync.WaitGroup
	var mu sync.Mutex
	created := 0
	for range 4 {
		group.Go(func() {
			did, err := CreateTopIndex(context.Background(), s.url, DefaultSchema)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("create: %v", err)
			}
			if did {
				created++
			}
		})
	}
	group.Wait()
	require.Equal(t, 1, created)
	require.Equal(t, IndexReady, state())

	// An interrupted creation leaves an invalid index. A transaction with an older snapshot makes it wait.
	exec(t, s, s.sql.dropTop)
	older, err := s.db.BeginTxx(t.Context(), nil)
	require.NoError(t, err)
	_, err = older.ExecContext(t.Context(), "LOCK TABLE counters IN ROW EXCLUSIVE MODE")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { _, err := CreateTopIndex(t.Context(), s.url, DefaultSchema); ended <- err }()
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { return state() == IndexInvalid, fmt.Sprint(state()) })
	exec(t, s, `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX%'`)
	require.ErrorContains(t, <-ended, "canceling statement due to user request")
	require.NoError(t, older.Rollback())
	require.Equal(t, IndexInvalid, state())

	did, err := CreateTopIndex(t.Context(), s.url, DefaultSchema)
	require.NoError(t, err)
	require.True(t, did)
	require.Equal(t, IndexReady, state())
}
