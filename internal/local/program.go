package local

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	// pipePatience bounds the wait for output after a process has ended: a grandchild may keep the pipe open.
	pipePatience = 2 * time.Second
	// pollEvery is the pause between two checks whether a process is ready.
	pollEvery = 20 * time.Millisecond
)

// Program describes a child process to run. Only Path is required.
//
// A child has a process group of its own. So a Ctrl-C in the terminal reaches only this process, which stops its children in the right
// order. On Linux the kernel ends the child when this process dies.
type Program struct {
	Name string // in errors; empty: the last element of Path
	Path string
	Args []string
	Dir  string   // working directory; empty: inherited
	Env  []string // nil: inherited

	Stdin  io.Reader
	Log    io.Writer // gets stdout and stderr. Calls come from goroutines of this package, one at a time unless Stdout is set
	Stdout io.Writer // gets a copy of stdout

	StopSignal   syscall.Signal // 0: SIGTERM
	OrphanSignal syscall.Signal // sent by the kernel when this process dies (Linux only); 0: SIGKILL
	OnExit       func()         // called after the process was reaped, before Process.Done is closed

	// Ports are ports of FreePort that the program listens on. They stay reserved until it ends: if this process dies, the program may
	// begin to listen before it gets OrphanSignal.
	Ports []int

	cred *syscall.Credential // nil: the user of this process
}

// Process is a running or ended child process. It is safe for concurrent use.
type Process struct {
	program Program
	cmd     *exec.Cmd
	log     *tail
	done    chan struct{}
}

// Start starts the program. It does not wait until the program is ready; see Process.Await.
func (p Program) Start() (*Process, error) {
	p.Name = cmp.Or(p.Name, filepath.Base(p.Path))
	log := &tail{next: p.Log}
	cmd := exec.Command(p.Path, p.Args...) //nolint:noctx // a child outlives the ctx of its start
	cmd.Dir, cmd.Env, cmd.Stdin = p.Dir, p.Env, p.Stdin
	cmd.Stdout, cmd.Stderr = log, log
	if p.Stdout != nil {
		cmd.Stdout = io.MultiWriter(p.Stdout, log)
	}
	cmd.WaitDelay = pipePatience
	cmd.SysProcAttr = procAttr(cmp.Or(p.OrphanSignal, syscall.SIGKILL))
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Credential = p.cred
	reserved, err := reservations(p.Ports)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer closeAll(reserved)
	cmd.ExtraFiles = reserved

	process := &Process{program: p, cmd: cmd, log: log, done: make(chan struct{})}
	started := make(chan error, 1)
	go process.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	return process, nil
}

// run starts the process and reaps it. It locks its thread meanwhile, because the kernel sends the parent death signal when the THREAD
// that forked ends (prctl(2), PR_SET_PDEATHSIG).
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	_ = p.cmd.Wait() // State returns the result
	if p.program.OnExit != nil {
		p.program.OnExit()
	}
	close(p.done)
}

// Run runs the program to its end. An exit status other than 0 is ErrExited. If ctx is done before, Run kills the program.
func (p Program) Run(ctx context.Context) (*Process, error) {
	process, err := p.Start()
	if err != nil {
		return nil, err
	}
	select {
	case <-process.done:
	case <-ctx.Done():
		process.Kill()
		return nil, fmt.Errorf("%s: %w", process.program.Name, ctx.Err())
	}
	if !process.State().Success() {
		return nil, process.exitError()
	}
	return process, nil
}

// Output runs the program to its end like Run, and returns its stdout.
func (p Program) Output(ctx context.Context) (string, error) {
	var out bytes.Buffer
	p.Stdout = &out
	_, err := p.Run(ctx)
	return out.String(), err
}

// Pid returns the process ID, also after the end.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether the process has not been reaped yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// State returns how the process ended ("exit status 1", "signal: killed"); nil while it runs.
func (p *Process) State() *os.ProcessState {
	if p.Running() {
		return nil
	}
	return p.cmd.ProcessState
}

// LastLog returns the last lines of the output, at most 12.
func (p *Process) LastLog() string { return p.log.String() }

// exitError returns the error for a process that has ended.
func (p *Process) exitError() error {
	return problemf(ErrExited, "%s ended: %s; the last lines of its log:\n%s", p.program.Name, p.State(), p.log)
}

// Await polls ready until it returns nil, at most until ctx is done. If the process ends, it returns ErrExited at once, with the last
// lines of its log.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	for {
		err := ready(ctx)
		if err == nil && p.Running() {
			return nil
		}
		select {
		case <-p.done:
			return p.exitError()
		case <-ctx.Done():
			return fmt.Errorf("start %s: no answer in time (%w); last error: %w", p.program.Name, ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

// httpTimeout bounds one request of Answers.
const httpTimeout = 5 * time.Second

// httpClient keeps no idle connections, since the process may end between two requests. It accepts any certificate: the processes run on
// this machine, under another name than that of their certificate.
var httpClient = &http.Client{Timeout: httpTimeout, Transport: &http.Transport{
	DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
}}

// Answers returns a condition for Await: a GET of the URL returns status 200 within 5 s.
func Answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		response, err := httpClient.Do(request)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}
}

// Signal sends a signal, and reports whether the process was running.
func (p *Process) Signal(signal os.Signal) bool {
	return p.Running() && p.cmd.Process.Signal(signal) == nil
}

// Stop sends the program's stop signal and blocks until the process has ended. After patience, or when ctx is done, it kills the
// process and returns ErrKilled. Stopping an ended process is no error.
func (p *Process) Stop(ctx context.Context, patience time.Duration) error {
	if !p.Running() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	p.Signal(cmp.Or(p.program.StopSignal, syscall.SIGTERM))
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	p.Kill()
	return problemf(ErrKilled, "%s did not stop in time and was killed", p.program.Name)
}

// Kill ends the process and its children with SIGKILL, and blocks until the process is reaped.
func (p *Process) Kill() {
	if !p.Running() {
		return
	}
	// Postgres's backends are in sessions of their own, so a signal to the process group does not reach them. SIGSTOP keeps postgres
	// from starting further ones.
	_ = syscall.Kill(p.Pid(), syscall.SIGSTOP)
	children := childrenOf(p.Pid())
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.done
}
