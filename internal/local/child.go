package local

import (
	"context"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// pipePatience bounds the wait for a dead server's output: a grandchild may still hold the pipe.
const pipePatience = 2 * time.Second

// command is what it takes to start a child.
type command struct {
	path  string
	args  []string
	dir   string // working folder
	env   []string
	stdin io.Reader
	log   io.Writer           // may be nil
	cred  *syscall.Credential // nil: the user of this process
	// orphanSignal is what the kernel sends the child when this process dies (Linux only).
	orphanSignal syscall.Signal
	// onExit runs when the child has ended and was reaped, before done is closed. It may be nil.
	onExit func()
}

// child is a running process, or one that has ended.
type child struct {
	cmd  *exec.Cmd
	log  *tail
	done chan struct{}
	err  error // how it ended; read it after done is closed only
}

// startChild starts the process in a process group of its own, so that a Ctrl-C in the terminal does not reach it.
// It does not wait for the process to be of any use.
func startChild(c command) (*child, error) {
	cmd := exec.Command(c.path, c.args...) //nolint:noctx // a server outlives the ctx of its start
	log := &tail{next: c.log}
	cmd.Dir, cmd.Env, cmd.Stdin = c.dir, c.env, c.stdin
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = pipePatience
	cmd.SysProcAttr = procAttr(c.orphanSignal)
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Credential = c.cred

	ch := &child{cmd: cmd, log: log, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The parent death signal fires when the THREAD that forked ends, not the process (prctl(2), PR_SET_PDEATHSIG).
		// So this goroutine keeps its thread for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		ch.err = cmd.Wait()
		if c.onExit != nil {
			c.onExit()
		}
		close(ch.done)
	}()

	if err := <-started; err != nil {
		return nil, err
	}
	return ch, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// stop sends the signal and waits for the end of the process, at most for patience or until ctx is done; then it kills. It
// reports whether the process ended by itself.
func (c *child) stop(ctx context.Context, sig os.Signal, patience time.Duration) bool {
	_ = c.cmd.Process.Signal(sig) // the only failure is that the process has ended already
	timer := time.NewTimer(patience)
	defer timer.Stop()

	select {
	case <-c.done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	c.kill()
	return false
}

// kill ends the process and its children with SIGKILL, and waits until the process is reaped.
func (c *child) kill() {
	if !c.running() {
		return
	}
	// Postgres' backends are sessions of their own: killing the process group does not reach them. While it is stopped it
	// makes no further ones.
	_ = syscall.Kill(c.pid(), syscall.SIGSTOP)
	offspring := childrenOf(c.pid())
	_ = syscall.Kill(-c.pid(), syscall.SIGKILL)
	for _, pid := range offspring {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-c.done
}
