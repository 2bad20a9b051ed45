package up

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// pipePatience bounds the wait for the rest of a dead process's output.
const pipePatience = 2 * time.Second

// process is a running child, or one that has ended.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *stream
	done chan struct{}
	err  error // how it ended; read it after done is closed only
}

// startProcess runs the program's own subcommand name. The child has a process group of its own, so that Ctrl-C in a
// terminal reaches only this process, which stops its children in order; on Linux the kernel ends it when this process dies.
func startProcess(executable, name string, env []string, out *stream) (*process, error) {
	cmd := exec.Command(executable, name) //nolint:gosec,noctx // our own executable; it is ended in order, see stop
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = pipePatience
	cmd.SysProcAttr = procAttr()

	p := &process{name: name, cmd: cmd, out: out, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the %s: %w", name, err)
	}
	return p, nil
}

// run keeps its thread for as long as the child lives: the parent death signal fires when the thread that forked ends,
// not the process (prctl(2), PR_SET_PDEATHSIG).
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	_ = p.out.Close()
	close(p.done)
}

// stop sends SIGTERM, which the process answers by finishing what it has begun, and SIGKILL when patience or ctx is over.
// It blocks until the process has ended, and reports whether it did so by itself.
func (p *process) stop(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it fails only when the process has ended
	select {
	case <-p.done:
		return true
	case <-ctx.Done():
	}
	_ = p.cmd.Process.Signal(os.Kill)
	<-p.done
	return false
}

// unexpected is the error of a process that ended without being told to.
func (p *process) unexpected() error {
	how := "with exit status 0"
	if p.err != nil {
		how = "with " + p.err.Error()
	}
	return fmt.Errorf("the %s ended %s: its last lines are above", p.name, how)
}
