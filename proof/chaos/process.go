package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// stopPatience is how long a process may take to end after a SIGTERM. It promises ten seconds.
	stopPatience = 12 * time.Second
	// restartPause is the wait before a process that ended by itself is started again, as a supervisor does.
	restartPause = 500 * time.Millisecond

	// clock is how times look in the logs.
	clock = "15:04:05.000"
)

// process is one of afterwrite's, started again whenever it ends.
type process struct {
	name string
	addr string
	path string
	sub  string // the subcommand
	env  []string
	log  *os.File

	mu      sync.Mutex
	running *os.Process // nil: it is down
	killed  bool
	down    time.Duration // how long it stays so
	unasked []string      // how it ended when nobody had killed it
}

// newProcess prepares a process whose output goes to dir/name.log.
func newProcess(dir, path, name, sub, addr string, env []string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &process{name: name, addr: addr, path: path, sub: sub, env: env, log: log}, nil
}

// supervise runs the process until ctx is done, and returns when it has ended. It keeps its thread, because the parent
// death signal fires when the thread that forked ends (prctl(2), PR_SET_PDEATHSIG).
func (p *process) supervise(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() { _ = p.log.Close() }()
	for ctx.Err() == nil {
		err := p.once(ctx)
		if ctx.Err() != nil {
			return
		}
		pause(ctx, p.ended(err))
	}
}

// once runs the process until it ends.
func (p *process) once(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.path, p.sub) //nolint:gosec // what we have built
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, p.log, p.log
	cmd.SysProcAttr = procAttr()
	cmd.Cancel = func() error {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		return cmd.Process.Signal(syscall.SIGTERM)
	}
	cmd.WaitDelay = stopPatience
	p.say("starts")
	if err := p.start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

func (p *process) start(cmd *exec.Cmd) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.running = cmd.Process
	return nil
}

// ended notes the end of the process, and returns how long it is to stay down.
func (p *process) ended(err error) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = nil
	if p.killed {
		p.killed = false
		return p.down
	}
	p.unasked = append(p.unasked, fmt.Sprintf("at %s: %v", time.Now().Format(clock), err))
	p.say(fmt.Sprintf("ended by itself: %v", err))
	return restartPause
}

// kill ends the process as a crash would, to be started again after some time. It reports false when it is down already.
func (p *process) kill(down time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil || p.killed {
		return false
	}
	p.killed, p.down = true, down
	p.say("is killed")
	return p.running.Kill() == nil
}

// endings tell how the process ended when nobody had killed it.
func (p *process) endings() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.unasked)
}

// signal reports whether the process got it.
func (p *process) signal(s syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running != nil && p.running.Signal(s) == nil
}

// say writes a line of our own into the process's log.
func (p *process) say(what string) {
	fmt.Fprintf(p.log, "--- %s chaos: %s %s\n", time.Now().Format(clock), p.name, what)
}
