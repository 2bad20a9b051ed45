package local_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func shell(script string) local.Program {
	return local.Program{Name: "the script", Path: "/bin/sh", Args: []string{"-c", script}}
}

func TestOutputReturnsStdout(t *testing.T) {
	t.Parallel()
	out, err := shell("echo out; echo problem >&2").Output(bounded(t))
	require.NoError(t, err)
	require.Equal(t, "out\n", out)

	_, err = shell("echo out; echo problem >&2; exit 3").Output(bounded(t))
	require.ErrorIs(t, err, local.ErrExited)
	require.ErrorContains(t, err, "the script ended: exit status 3")
	require.ErrorContains(t, err, "problem")
}

func TestProgramIsKilledWhenItsContextIsDone(t *testing.T) {
	t.Parallel()
	ctx, cancel := contextDone(bounded(t))
	defer cancel()
	began := time.Now()
	_, err := shell("sleep 60").Run(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 30*time.Second)
}

func TestAwaitEndsWithTheProcess(t *testing.T) {
	t.Parallel()
	p, err := shell("echo cannot go on; exit 4").Start()
	require.NoError(t, err)
	err = p.Await(bounded(t), func(context.Context) error { return errors.New("not ready") })
	require.ErrorIs(t, err, local.ErrExited)
	require.ErrorContains(t, err, "cannot go on")
	require.Equal(t, "exit status 4", p.State().String())
	require.False(t, p.Signal(syscall.SIGTERM), "it has ended")
	require.NoError(t, p.Stop(bounded(t), time.Second), "stopping a process that has ended is no error")
}

func TestKillEndsTheChildrenToo(t *testing.T) {
	t.Parallel()
	p, err := shell("sleep 60 & echo $!; wait").Start()
	require.NoError(t, err)
	require.NoError(t, p.Await(bounded(t), func(context.Context) error {
		if p.LastLog() == "" {
			return errors.New("it has not printed its child's ID")
		}
		return nil
	}))
	child := p.LastLog()
	p.Kill()
	require.Equal(t, "signal: killed", p.State().String())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) { return !alive(child), child + " still runs" })
}
