package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Answers without a reading.
var (
	silent = answer{outcome: acknowledged}
	unsure = answer{outcome: indeterminate}
	absent = answer{outcome: refused, missing: true}
)

func with(value, version int64) answer {
	return answer{outcome: acknowledged, reading: &reading{value: value, version: version}}
}

func TestSequenceIsExactWithoutIndeterminateOutcomes(t *testing.T) {
	t.Parallel()
	s := newSequence(0)
	require.Empty(t, s.apply(step{stepIncrement, 3}, with(3, 1)))
	require.Empty(t, s.apply(step{stepSet, 10}, silent))
	require.Empty(t, s.apply(step{stepIncrement, -4}, answer{outcome: refused}))
	require.Empty(t, s.apply(step{stepIncrement, -4}, with(6, 3)))
	require.Empty(t, s.apply(step{stepDelete, 0}, silent))
	require.Empty(t, s.apply(step{kind: stepGet}, absent))
	require.Empty(t, s.apply(step{stepIncrement, 1}, with(1, 5)))
	require.True(t, s.certain())

	require.Contains(t, s.apply(step{kind: stepGet}, with(2, 5)), "value 2, but it must be 1")
	require.Contains(t, s.apply(step{kind: stepGet}, with(1, 4)), "lost")
	require.Contains(t, s.apply(step{kind: stepGet}, with(1, 6)), "counted twice")
	require.Contains(t, s.apply(step{kind: stepGet}, absent), "no counter")
}

func TestReadOfADeletedCounterIsAViolation(t *testing.T) {
	t.Parallel()
	s := newSequence(0)
	require.Empty(t, s.apply(step{stepSet, 1}, with(1, 1)))
	require.Empty(t, s.apply(step{stepDelete, 0}, silent))
	require.Contains(t, s.apply(step{kind: stepGet}, with(1, 1)), "deleted")
}

func TestSetAfterAnIndeterminateOutcomeMakesTheStateKnown(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]int64{"applied before": 3, "not yet applied": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSequence(0)
			require.Empty(t, s.apply(step{stepSet, 1}, with(1, 1)))
			require.Empty(t, s.apply(step{stepIncrement, 1}, unsure))
			require.False(t, s.sure)
			require.Empty(t, s.apply(step{stepSet, 7}, with(7, version)))
			require.True(t, s.sure)
			require.Equal(t, version == 3, s.certain(), "a loose operation may be applied later")
			require.NotEmpty(t, s.apply(step{kind: stepGet}, with(8, version)))
		})
	}
}

func TestLateApplicationIsNoViolationButMakesTheStateUnknown(t *testing.T) {
	t.Parallel()
	s := newSequence(0)
	require.Empty(t, s.apply(step{stepIncrement, 1}, unsure))
	require.Empty(t, s.apply(step{stepSet, 7}, with(7, 1)))
	require.Empty(t, s.apply(step{kind: stepGet}, with(8, 2)))
	require.False(t, s.sure)
	require.Zero(t, s.loose)
	require.NotEmpty(t, s.apply(step{stepSet, 7}, with(7, 4)), "it cannot be applied twice")
}
