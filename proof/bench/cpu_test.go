package main

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/require"
)

func TestCPUTimeCountsEachDescendantOnce(t *testing.T) {
	t.Parallel()
	all := make(map[int]procfs.ProcStat)
	for _, s := range []procfs.ProcStat{
		{PID: 1, UTime: 360_000},
		{PID: 10, PPID: 1, UTime: 60, STime: 40, CUTime: 150, CSTime: 50},
		{PID: 11, PPID: 10, UTime: 400},
		{PID: 12, PPID: 11, STime: 800},
		{PID: 20, PPID: 1, UTime: 6000},
	} {
		all[s.PID] = s
	}

	require.Equal(t, 15*time.Second, cpuTime(all, []int{10}))
	require.Equal(t, 15*time.Second, cpuTime(all, []int{10, 12}), "a descendant that is in pids too")
	require.Equal(t, 75*time.Second, cpuTime(all, []int{10, 20}))
	require.Zero(t, cpuTime(all, []int{99}))
}

func TestCPUTimeIncludesReapedChildren(t *testing.T) {
	t.Parallel()
	used := func() time.Duration {
		all, err := everyProcess()
		require.NoError(t, err)
		return cpuTime(all, []int{os.Getpid()})
	}
	before := used()

	worked := exec.CommandContext(t.Context(), "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
	require.NoError(t, worked.Run())

	require.Greater(t, used(), before)
}
