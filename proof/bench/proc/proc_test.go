package proc

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseReadsALineWhoseNameHasParentheses(t *testing.T) {
	t.Parallel()
	stat, err := Parse([]byte("412 (postgres: a) b)) S 400 412 412 0 -1 4194560 10 20 0 0 150 50 7 3 20 0 1 0 99 1000 200 184"))

	require.NoError(t, err)
	require.Equal(t, Stat{PID: 412, Parent: 400, Own: 2 * time.Second, Reaped: 100 * time.Millisecond}, stat)
}

func TestParseRefusesWhatIsNoStatLine(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"", "412", "412 (x) S 400", "x (y) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "4 (y) S 1 1 1 1 1 1 1 1 1 1 b 1 1 1 1 1"} {
		_, err := Parse([]byte(line))
		require.Error(t, err, line)
	}
}

func TestDescendantsCountOnceEach(t *testing.T) {
	t.Parallel()
	all := []Stat{
		{PID: 1, Own: time.Hour},
		{PID: 10, Parent: 1, Own: time.Second, Reaped: 2 * time.Second},
		{PID: 11, Parent: 10, Own: 4 * time.Second},
		{PID: 12, Parent: 11, Own: 8 * time.Second},
		{PID: 20, Parent: 1, Own: time.Minute},
	}

	require.Equal(t, 15*time.Second, total(all, []int{10}))
	require.Equal(t, 15*time.Second, total(all, []int{10, 12}), "a child that is asked for as well")
	require.Equal(t, 75*time.Second, total(all, []int{10, 20}))
	require.Zero(t, total(all, []int{99}))
}

func TestCPUSeesTheWorkOfAChildThatHasEnded(t *testing.T) {
	t.Parallel()
	before, err := CPU(os.Getpid())
	require.NoError(t, err)

	worked := exec.CommandContext(t.Context(), "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	require.NoError(t, worked.Run())

	after, err := CPU(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, after, before)
}
