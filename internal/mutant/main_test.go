package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFailureIsAVerdictWhetherOrNotItIsMetAgain(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]string{
		"    machine_test.go:29: [rapid] failed after 17 tests: c is wrong\n": "c is wrong",
		"    machine_test.go:29: [rapid] flaky test, can not reproduce a failure\n        To try to reproduce, specify -run=\"TestMachine\"\n" +
			"        Traceback (<nil>):\n            <no error>\n        Original traceback (b is wrong):\n            engine.go:902\n": "b is wrong",
	} {
		found := verdict.FindStringSubmatch(output)
		if found == nil {
			found = once.FindStringSubmatch(output)
		}
		require.Len(t, found, 3, output)
		require.Equal(t, want, found[2])
	}
	require.Nil(t, once.FindStringSubmatch("worker/machine.go:1:1: expected 'package'"))
}
