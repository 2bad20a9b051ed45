package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	readyPatience = 20 * time.Second
	// stopPatience is how long a process may take to end after a SIGTERM. It promises ten seconds.
	stopPatience = 12 * time.Second
)

// Process is one of afterwrite's. It may be started any number of times, at the same address.
type Process struct {
	Name string // "api-0": the subcommand, and its number on the stage
	URL  string // http://127.0.0.1:port
	Log  string // the file that gets its output

	program local.Program
	current atomic.Pointer[local.Process] // nil: it was not started, or was stopped or killed
	scraped time.Time                     // when its metrics were last read
}

// Start starts a process of afterwrite with its default settings and those given as NAME=value, and blocks until it is ready:
// for 20 s at most. It is ended by Stop, StopAll or World.Stop.
func (s *Stage) Start(ctx context.Context, sub string, settings ...string) (*Process, error) {
	p, err := s.Launch(sub, settings...)
	if err != nil {
		return nil, err
	}
	return p, p.Ready(ctx)
}

// Launch is Start that does not wait until the process is ready.
func (s *Stage) Launch(sub string, settings ...string) (*Process, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	number := 0
	for _, p := range s.processes {
		if strings.HasPrefix(p.Name, sub+"-") {
			number++
		}
	}
	name := fmt.Sprintf("%s-%d", sub, number)
	p := &Process{
		Name: name, URL: "http://" + addr, Log: filepath.Join(s.world.Dir, s.name+"-"+name+".log"),
		program: local.Program{
			Name: name, Path: s.program, Args: []string{sub}, Env: s.environment(append(settings, addressOf(sub, addr))...),
		},
	}
	s.processes = append(s.processes, p)
	return p, p.Start()
}

// freeAddress is where a process may listen.
func freeAddress() (string, error) {
	port, err := local.FreePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), err
}

// addressOf is the setting that has a process listen there.
func addressOf(sub, addr string) string {
	return "AFTERWRITE_" + strings.ToUpper(sub) + "_ADDR=" + addr
}

// environment is that of this process without AFTERWRITE_* and PORT, which would make two runs differ.
func (s *Stage) environment(settings ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "AFTERWRITE_") || strings.HasPrefix(variable, "PORT=")
	})
	env = append(env, "REDIS_URL="+s.RedisURL, "DATABASE_URL="+s.DatabaseURL)
	return slices.Concat(env, s.world.options.Settings, settings)
}

// Start starts the process again after its end. It does not wait until it is ready.
func (p *Process) Start() error {
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	program := p.program
	program.Log, program.OnExit = log, func() { _ = log.Close() }
	running, err := program.Start()
	if err != nil {
		_ = log.Close()
		return err
	}
	p.current.Store(running)
	return nil
}

// Ready blocks until the process says that what it needs answers: for 20 s at most. The end of the process is an error at once.
func (p *Process) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	return p.current.Load().Await(ctx, local.Answers(p.URL+"/readyz"))
}

// Pid is the ID of the running process; 0 when it was stopped or killed.
func (p *Process) Pid() int {
	if running := p.current.Load(); running != nil {
		return running.Pid()
	}
	return 0
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	running := p.current.Load()
	return running != nil && running.Running()
}

// Signal sends a signal, and reports whether the process was there to get it.
func (p *Process) Signal(signal os.Signal) bool {
	running := p.current.Load()
	return running != nil && running.Signal(signal)
}

// Ended blocks until the process has ended or ctx is done, and returns how it ended; nil if it was killed or stopped.
func (p *Process) Ended(ctx context.Context) *os.ProcessState {
	running := p.current.Load()
	if running == nil {
		return nil
	}
	select {
	case <-running.Done():
	case <-ctx.Done():
	}
	if p.current.Load() != running {
		return nil
	}
	return running.State()
}

// Kill ends the process as a crash would, and blocks until it has ended. It reports false when there is none.
func (p *Process) Kill() bool {
	running := p.current.Load()
	if running == nil || !running.Running() || !p.current.CompareAndSwap(running, nil) {
		return false
	}
	running.Kill()
	return true
}

// Stop ends the process with SIGTERM and blocks until it has ended: for 12 s, then it is killed. An exit status other than 0 is an
// error, also if the process has ended by itself before. A process that was stopped or killed is left alone.
func (p *Process) Stop() error {
	running := p.current.Swap(nil)
	if running == nil {
		return nil
	}
	if err := running.Stop(context.Background(), stopPatience); err != nil {
		return err
	}
	if !running.State().Success() {
		return fmt.Errorf("%s ended: %s: %s", p.Name, running.State(), running.LastLog())
	}
	return nil
}

// StopAll ends the processes of the stage, all at the same time.
func (s *Stage) StopAll() error {
	results := make(chan error, len(s.processes))
	for _, p := range s.processes {
		go func() { results <- p.Stop() }()
	}
	problems := make([]error, 0, len(s.processes))
	for range s.processes {
		problems = append(problems, <-results)
	}
	s.processes = nil
	return errors.Join(problems...)
}

// Drain runs `afterwrite worker --drain`, which works until nothing is dirty, and returns the CPU time that it has used.
func (s *Stage) Drain(ctx context.Context) (time.Duration, error) {
	addr, err := freeAddress()
	if err != nil {
		return 0, err
	}
	state, err := s.run(ctx, []string{addressOf("worker", addr)}, "worker", "--drain")
	if err != nil {
		return 0, err
	}
	return state.UserTime() + state.SystemTime(), nil
}

// run runs a command of the program to its end.
func (s *Stage) run(ctx context.Context, settings []string, args ...string) (*os.ProcessState, error) {
	p, err := local.Program{
		Name: strings.Join(args, " "), Path: s.program, Args: args, Env: s.environment(settings...),
	}.Run(ctx)
	if err != nil {
		return nil, err
	}
	return p.State(), nil
}
