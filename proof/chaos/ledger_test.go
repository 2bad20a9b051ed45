package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestBoundsAddPositiveAndNegativeIndeterminateAmountsSeparately(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a"})
	for _, write := range []struct {
		by int64
		o  outcome
	}{{5, acknowledged}, {-2, acknowledged}, {3, indeterminate}, {-4, indeterminate}, {100, refused}, {-100, refused}} {
		require.Empty(t, a.settle(a.begin(write.by), write.by, 0, write.o, nil))
	}
	require.Equal(t, bounds{low: reading{value: 3 - 4, version: 2}, high: reading{value: 3 + 3, version: 4}}, final(a))
}

func TestCheckNamesTheViolatedBound(t *testing.T) {
	t.Parallel()
	b := bounds{low: reading{value: -1, version: 2}, high: reading{value: 6, version: 4}}
	for _, good := range []reading{{-1, 2}, {6, 4}, {0, 3}} {
		require.Empty(t, b.check(good))
	}
	require.Contains(t, b.check(reading{3, 1}), "lost")
	require.Contains(t, b.check(reading{3, 5}), "counted twice")
	require.Contains(t, b.check(reading{7, 3}), "value 7")
	require.Contains(t, b.check(reading{-2, 3}), "value -2")
}

func TestReadMustIncludeAcknowledgedAndMayIncludePendingIncrements(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a"})
	require.Empty(t, a.settle(a.begin(5), 5, 0, acknowledged, &reading{value: 5, version: 1}))

	w := a.open()
	pending := a.begin(2)
	require.Empty(t, a.read(w, reading{value: 5, version: 1}))
	require.Empty(t, a.read(w, reading{value: 7, version: 2}))
	require.Contains(t, a.read(w, reading{value: 0, version: 0}), "lost")
	require.Contains(t, a.read(w, reading{value: 9, version: 3}), "counted twice")

	require.Empty(t, a.settle(pending, 2, 0, acknowledged, nil))
	require.Contains(t, a.read(a.open(), reading{value: 5, version: 1}), "lost")
	require.Contains(t, a.read(a.open(), reading{value: 6, version: 2}), "value 6")
}

func TestAnsweredVersionMustNotBeLost(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a"})
	require.Empty(t, a.settle(a.begin(5), 5, 0, indeterminate, nil))
	require.Empty(t, a.read(a.open(), reading{}), "the increment may be missing")
	require.Empty(t, a.read(a.open(), reading{value: 5, version: 1}), "or applied")
	require.Contains(t, a.read(a.open(), reading{}), "lost", "an answered version must stay")
}

func TestAcknowledgedIncrementsMustHaveDifferentVersions(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a"})
	first, second := a.begin(1), a.begin(1)
	require.Empty(t, a.settle(first, 1, 0, acknowledged, &reading{value: 1, version: 1}))
	require.Contains(t, a.settle(second, 1, 0, acknowledged, &reading{value: 1, version: 1}), "which another acknowledged increment has too")
}

// A correct counter is within its bounds, whichever indeterminate writes are applied. If no outcome is unknown, a counter that lacks
// an acknowledged write is out of bounds.
func TestBoundsHoldForEverySubsetOfIndeterminateWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := newAccount(name{key: "a"})
		var truth reading
		var unknown int
		for i := range rapid.IntRange(1, 30).Draw(t, "writes") {
			by := rapid.Int64Range(-5, 5).Draw(t, fmt.Sprint("by", i))
			o := rapid.SampledFrom([]outcome{acknowledged, refused, indeterminate}).Draw(t, fmt.Sprint("outcome", i))
			w := a.begin(by)
			var answered *reading
			if o == acknowledged || o == indeterminate && rapid.Bool().Draw(t, fmt.Sprint("applied", i)) {
				truth.value += by
				truth.version++
				if o == acknowledged && rapid.Bool().Draw(t, fmt.Sprint("answered", i)) {
					answered = &reading{value: truth.value, version: truth.version}
				}
			}
			if o == indeterminate {
				unknown++
			}
			require.Empty(t, a.settle(w, by, 0, o, answered))
		}
		require.Empty(t, final(a).check(truth))
		require.Empty(t, a.read(a.open(), truth))
		if unknown == 0 && truth.version > 0 {
			require.NotEmpty(t, final(a).check(reading{value: truth.value, version: truth.version - 1}))
			require.NotEmpty(t, final(a).check(reading{value: truth.value + 1, version: truth.version}))
		}
	})
}

func TestBitsetAddReportsNewMembers(t *testing.T) {
	t.Parallel()
	var b bitset
	for _, n := range []int64{0, 63, 64, 1000} {
		require.True(t, b.add(n), n)
		require.False(t, b.add(n), n)
	}
}

func final(a *account) bounds {
	b, _ := a.final()
	return b
}

func TestRowMayBeOldButMustNotGoBackOrHaveAWrongValue(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a"})
	for i := range int64(3) {
		require.Empty(t, a.settle(a.begin(5), 5, 0, acknowledged, &reading{value: 5 * (i + 1), version: i + 1}))
	}
	require.Empty(t, a.checkRow(reading{value: 5, version: 1}))
	require.Empty(t, a.checkRow(reading{value: 10, version: 2}))
	require.Contains(t, a.checkRow(reading{value: 5, version: 1}), "gone back")
	require.Contains(t, a.checkRow(reading{value: 14, version: 3}), "was answered with value 15")
	require.Contains(t, a.checkRow(reading{value: 20, version: 4}), "counted twice")
}

func TestReadingsOfOneVersionMustHaveTheSameValue(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a"})
	require.Empty(t, a.settle(a.begin(5), 5, 0, acknowledged, &reading{value: 5, version: 1}))
	require.Empty(t, a.settle(a.begin(3), 3, 0, indeterminate, nil))
	require.Empty(t, a.settle(a.begin(-4), -4, 0, indeterminate, nil))
	require.Contains(t, a.read(a.open(), reading{value: 4, version: 1}), "which had value 5")
}

func TestCounterContinuesFromItsColumn(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a", start: 1234})
	require.Contains(t, a.read(a.open(), reading{}), "value 0", "the counter does not exist, although its column has a value")
	require.Empty(t, a.read(a.open(), reading{value: 1234}))
	w := a.begin(2)
	require.Empty(t, a.settle(w, 2, 0, acknowledged, &reading{value: 1236, version: 1}))
	w = a.begin(2)
	require.NotEmpty(t, a.settle(w, 2, 0, acknowledged, &reading{value: 4, version: 2}), "without the column")
	require.Empty(t, a.checkRow(reading{value: 1236, version: 1}))
	b, _ := a.final()
	require.Equal(t, bounds{low: reading{1238, 2}, high: reading{1238, 2}}, b)
}

func TestReadsOfAReplacedMasterMayBeOldButNotImpossible(t *testing.T) {
	t.Parallel()
	a := newAccount(name{key: "a"})
	a.weak = true
	for version := range int64(3) {
		require.Empty(t, a.settle(a.begin(2), 2, 0, acknowledged, &reading{2 * (version + 1), version + 1}))
	}
	require.Empty(t, a.read(a.open(), reading{2, 1}))
	require.Contains(t, a.read(a.open(), reading{8, 4}), "counted twice")
	require.Contains(t, a.settle(a.begin(2), 2, 0, acknowledged, &reading{4, 2}), "lost", "an acknowledged write is not old")
}
