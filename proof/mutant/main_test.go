package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJudgeFindsFailuresThatAreReproducedAndThoseThatAreNot(t *testing.T) {
	t.Parallel()
	const again = "    machine_test.go:29: [rapid] failed after 17 tests: c is wrong\n"
	const flaky = "    machine_test.go:29: [rapid] flaky test, can not reproduce a failure\n" +
		"        To try to reproduce, specify -run=\"TestMachine\"\n" +
		"        Traceback (<nil>):\n            <no error>\n        Original traceback (b is wrong):\n            engine.go:902\n"
	const sequence = "    --- FAIL: TestMachineSequences/a_lost_delete_is_not_undone (0.05s)\n"
	for output, want := range map[string]string{
		again:            "failed after 17 tests: c is wrong",
		flaky:            "failed once: b is wrong",
		sequence:         "by a sequence: a lost delete is not undone",
		sequence + again: "failed after 17 tests: c is wrong",
		"worker/machine.go:1:1: expected 'package'": "",
	} {
		require.Equal(t, want, judge(output), output)
	}
}

func TestEveryMutantFindsItsMarkersAndChangesTheirLines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, m := range mutants() {
		for _, c := range m.changes {
			content, err := os.ReadFile(filepath.Join("..", "..", c.file))
			require.NoError(t, err)
			copied := filepath.Join(dir, c.file)
			require.NoError(t, os.MkdirAll(filepath.Dir(copied), 0o700))
			require.NoError(t, os.WriteFile(copied, content, 0o600))
			undo, err := c.apply(dir)
			require.NoError(t, err, m.name)
			changed, err := os.ReadFile(copied)
			require.NoError(t, err)
			require.NotEqual(t, string(content), string(changed), m.name)
			require.NoError(t, undo())
		}
	}
}

func TestMarkerNamesItsLineOrTheNext(t *testing.T) {
	t.Parallel()
	lines := []string{"join(s) -- step: join", "  -- step: check", "  if a then -- why", "x -- step: twice", "// step: twice"}
	at, err := find(lines, "join")
	require.NoError(t, err)
	require.Equal(t, 0, at)
	at, err = find(lines, "check")
	require.NoError(t, err)
	require.Equal(t, 2, at)
	changed, ok := never(lines[at])
	require.True(t, ok)
	require.Equal(t, "  if false then", changed)
	_, err = find(lines, "twice")
	require.ErrorContains(t, err, "two lines")
	_, err = find(lines, "gone")
	require.ErrorContains(t, err, `no line has the marker "step: gone"`)
}
