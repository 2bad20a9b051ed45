package main

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/world"
)

func TestUnknownOutcomesWidenTheIntervalUpwards(t *testing.T) {
	t.Parallel()
	a := &account{acks: make([]ack, 10), unknown: 3}
	for value, want := range map[int64][2]int64{8: {2, 0}, 9: {1, 0}, 10: {0, 0}, 13: {0, 0}, 14: {0, 1}} {
		lost, double := a.compare(value)
		require.Equal(t, want, [2]int64{lost, double}, "value %d", value)
	}
}

func TestLongestGapIncludesTheEnds(t *testing.T) {
	t.Parallel()
	began := time.Now()
	at := func(seconds int) time.Time { return began.Add(time.Duration(seconds) * time.Second) }
	a := &account{acks: []ack{{at(0), at(1)}, {at(2), at(3)}, {at(7), at(8)}}}
	require.Equal(t, 5*time.Second, a.longestGap(at(0), at(9)))
	require.Equal(t, 7*time.Second, a.longestGap(at(0), at(15)))
	require.Equal(t, 2*time.Second, a.longestGap(at(0), at(4)))
	first, ok := a.firstAfter(at(1))
	require.True(t, ok)
	require.Equal(t, at(3), first)
	_, ok = a.firstAfter(at(8))
	require.False(t, ok)
}

func TestOnlyCertainAnswersCount(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		body   string
		err    error
		want   world.Outcome
	}{
		{200, `{"value":1}`, nil, world.Acknowledged},
		{202, `{"value":null}`, nil, world.Acknowledged},
		{503, `{"code":"cache_unavailable"}`, nil, world.Refused},
		{503, `{"code":"not_durable"}`, nil, world.Indeterminate},
		{504, `{"code":"outcome_unknown"}`, nil, world.Indeterminate},
		{500, `{"code":"internal"}`, nil, world.Indeterminate},
		{502, `<html>`, nil, world.Indeterminate},
		{0, ``, &net.OpError{Op: "dial", Err: errors.New("refused")}, world.Refused},
		{0, ``, &net.OpError{Op: "read", Err: errors.New("reset")}, world.Indeterminate},
	} {
		outcome, _ := judge(test.status, []byte(test.body), test.err)
		require.Equal(t, test.want, outcome, "%d %s", test.status, test.body)
	}
}
