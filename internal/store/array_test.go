package store

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// oddKeys are keys that a text encoding of arrays would have to quote or escape, or might misread.
var oddKeys = []string{
	"NULL", "null", `"`, `""`, `\`, `\\`, `a"b`, `a\b`, `\x41`, ",", "a,b", "{", "}", "{}", "{a,b}", "'", "it's", "$1", "%s",
	" ", "  leading", "trailing  ", "(1,2)", "t", "f", "0", "-1", "🙂", "naïve", "日本語", "\u00a0", "\u2028", "e\u0301",
}

func TestOddKeysSurviveTheArrayEncoding(t *testing.T) {
	t.Parallel()
	s := setup(t)
	rows := make([]counter.Row, 0, len(oddKeys))
	for i, key := range oddKeys {
		rows = append(rows, row(key, int64(i), 1))
	}
	upsert(t, s, rows...)
	has(t, s, rows...)
	require.Equal(t, len(rows), get[int](t, s, "SELECT count(*) FROM counters"))
}

func TestArraysRoundTrip(t *testing.T) {
	t.Parallel()
	s := setup(t)
	notNUL := rapid.Rune().Filter(func(r rune) bool { return r != 0 })
	text := rapid.OneOf(rapid.StringOf(notNUL), rapid.SampledFrom(oddKeys))
	anyRow := rapid.Custom(func(t *rapid.T) counter.Row {
		return counter.Row{
			Key:     counter.Key(text.Draw(t, "key")),
			Value:   rapid.OneOf(rapid.Int64(), rapid.SampledFrom([]int64{0, -1, math.MinInt64, math.MaxInt64})).Draw(t, "value"),
			Version: rapid.Int64Min(0).Draw(t, "version"),
			Deleted: rapid.Bool().Draw(t, "deleted"),
		}
	})
	rapid.Check(t, func(r *rapid.T) {
		sent := rapid.SliceOf(anyRow).Draw(r, "rows")
		got := []record{}
		require.NoError(r, s.db.SelectContext(t.Context(), &got, `SELECT key, value, version, deleted
			FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::boolean[]) WITH ORDINALITY AS b (key, value, version, deleted, i)
			ORDER BY i`,
			keyArray(sent, rowKey), int64Array(sent, rowValue), int64Array(sent, rowVersion), boolArray(sent, rowDeleted)))
		require.Len(r, got, len(sent))
		for i := range sent {
			require.Equal(r, sent[i], got[i].row())
		}
	})
}

func TestEmptyArrays(t *testing.T) {
	t.Parallel()
	s := setup(t)
	n := get[int](t, s, "SELECT coalesce(array_length($1::text[], 1), 0) + coalesce(array_length($2::bigint[], 1), 0)",
		keyArray([]counter.Row{}, rowKey), int64Array([]counter.Row{}, rowValue))
	require.Zero(t, n)
}
