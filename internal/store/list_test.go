package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// listAll lists all keys with a prefix, page by page.
func listAll(t *testing.T, s *Store, prefix string, limit int) []string {
	t.Helper()
	var keys []string
	after := counter.Key("")
	for {
		rows, more, err := s.List(t.Context(), prefix, after, limit)
		require.NoError(t, err)
		require.LessOrEqual(t, len(rows), limit)
		for _, r := range rows {
			keys = append(keys, string(r.Key))
			after = r.Key
		}
		if !more {
			return keys
		}
		require.Len(t, rows, limit)
	}
}

func TestListReturnsTheKeysWithAPrefixInBytewiseOrder(t *testing.T) {
	t.Parallel()
	s := setup(t)
	last := strings.Repeat("\U0010FFFF", 63)
	keys := []string{
		"a", "a ", "a!", "a:", "a:1", "a:10", "a:2", "a:é", "a:\U0001F642", "a;", "A:1", "b", "é", "é:1", "ê", "~", "~:1", "\u00a0",
		"\uD7FF", "\uD7FF1", "\uE000", "\U0010FFFF", "\U0010FFFF1", last, last + "~~~", "%", "_", "\\", "a_1",
	}
	rows := make([]counter.Row, len(keys))
	for i, key := range keys {
		rows[i] = row(key, int64(i), 1)
	}
	upsert(t, s, rows...)
	slices.Sort(keys)
	prefixes := append(slices.Clone(keys), "", "a:1x", "\uD7FE", "zz")
	for _, prefix := range prefixes {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		for _, limit := range []int{1, 2, 1000} {
			require.Equal(t, want, listAll(t, s, prefix, limit), "%q, %d at a time", prefix, limit)
		}
	}
	for _, limit := range []int{0, -1, MaxListed + 1} {
		_, _, err := s.List(t.Context(), "", "", limit)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

func TestListIncludesTombstones(t *testing.T) {
	t.Parallel()
	s := setup(t)
	upsert(t, s, row("a", 5, 2), tombstone("b", 3))
	rows, more, err := s.List(t.Context(), "", "", 2)
	require.NoError(t, err)
	require.False(t, more)
	require.Equal(t, []counter.Row{row("a", 5, 2), tombstone("b", 3)}, rows)
}

func TestEndOfAPrefixIsTheLeastTextAfterItsKeys(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		prefix, other := rapid.String().Draw(t, "prefix"), rapid.String().Draw(t, "other")
		if len(prefix) > counter.MaxKeyBytes || len(other) > counter.MaxKeyBytes {
			t.Skip("not a key")
		}
		inRange := other >= prefix && other < endOf(prefix)
		require.Equal(t, strings.HasPrefix(other, prefix), inRange, "%q in %q", other, prefix)
		require.Less(t, prefix+strings.Repeat("\U0010FFFF", 3), endOf(prefix)+"\U0010FFFF\U0010FFFF\U0010FFFF")
	})
}

// The statistics are missing, out of date, or say that the range is small. Keys are in random order in the table.
func TestListReadsItsPageFromTheIndexWhateverTheStatistics(t *testing.T) {
	t.Parallel()
	s := setup(t)
	insert := func(prefix string, n int) {
		exec(t, s, `INSERT INTO counters SELECT $1 || lpad(i::text, 8, '0'), 0, 1, NULL, now(), 0, 0
			FROM generate_series(1, $2::int) i ORDER BY md5(i::text)`, prefix, n)
	}
	check := func(when string) {
		for _, limit := range []int{1, 100, MaxListed} {
			for prefix, after := range map[string]string{"": "", "new:": "", "old:": "old:00010000"} {
				var lines []string
				require.NoError(t, s.db.SelectContext(t.Context(), &lines, "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) "+s.sql.page,
					prefix+after, endOf(prefix), limit+1))
				plan := strings.Join(lines, "\n")
				what := fmt.Sprintf("%s, %q, %d:\n%s", when, prefix, limit, plan)
				require.Contains(t, plan, "Index Scan using counters_pkey", what)
				require.NotContains(t, plan, "Sort", what)
				require.NotContains(t, plan, "Bitmap", what)
			}
		}
	}
	insert("old:", 20_000)
	check("never analyzed")
	exec(t, s, "ANALYZE counters")
	insert("new:", 20_000)
	check("the new range has no statistics")
	exec(t, s, "ANALYZE counters")
	check("analyzed")
	exec(t, s, "DELETE FROM counters WHERE key LIKE 'new:%'")
	check("the range is gone")
}

func BenchmarkList(b *testing.B) {
	s := setup(b)
	exec(b, s, `INSERT INTO counters SELECT 'page:' || lpad(i::text, 8, '0'), 0, 0, NULL, now(), 0, 0
		FROM generate_series(0, 99999) i ORDER BY md5(i::text)`)
	exec(b, s, "VACUUM ANALYZE counters")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		after := counter.Key(fmt.Sprintf("page:%08d", i*7919%98_000))
		rows, more, err := s.List(b.Context(), "page:", after, MaxListed)
		require.NoError(b, err)
		require.True(b, more)
		require.Len(b, rows, MaxListed)
	}
}
