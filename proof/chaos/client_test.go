package main

import (
	"errors"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecodeDerivesTheOutcome(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status int
		body   string
		want   answer
	}{
		{
			200, `{"key":"a","value":3,"version":2,"synced":true}`,
			answer{outcome: acknowledged, reason: "acknowledged", reading: &reading{3, 2}, synced: true},
		},
		{202, `{"key":"a","value":null,"version":null,"synced":false}`, answer{outcome: acknowledged, reason: "acknowledged, value unknown"}},
		{204, ``, answer{outcome: acknowledged, reason: "acknowledged"}},
		{404, `{"code":"not_found"}`, answer{outcome: refused, reason: "not_found", missing: true}},
		{503, `{"code":"cache_unavailable"}`, answer{outcome: refused, reason: "cache_unavailable"}},
		{504, `{"code":"outcome_unknown"}`, answer{outcome: indeterminate, reason: "outcome_unknown"}},
		{500, `{"code":"internal"}`, answer{outcome: indeterminate, reason: `unexpected "internal"`}},
		{400, `{"code":"invalid_body"}`, answer{outcome: indeterminate, reason: `unexpected "invalid_body"`}},
		{200, `{"key":"a","val`, answer{outcome: indeterminate, reason: "unreadable answer"}},
		{200, `{"results":[{"key":"a","value":1,"version":1,"synced":false},{"key":"b","error":{"code":"overloaded"}}]}`, answer{
			outcome: acknowledged, reason: "acknowledged", results: []answer{
				{outcome: acknowledged, reason: "acknowledged", reading: &reading{1, 1}},
				{outcome: refused, reason: "overloaded"},
			},
		}},
	} {
		require.Equal(t, test.want, decode(test.status, []byte(test.body)), test.body)
	}
}

func TestOnlyAFailedDialIsARefusal(t *testing.T) {
	t.Parallel()
	refusal := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	require.Equal(t, refused, unanswered(refusal).outcome)
	require.Equal(t, indeterminate, unanswered(&net.OpError{Op: "read", Err: errors.New("reset")}).outcome)
	require.Equal(t, indeterminate, unanswered(errors.New("EOF")).outcome)
}
