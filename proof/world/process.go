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
	// stopPatience is how long Stop waits after SIGTERM: the ten seconds that afterwrite promises, and two more.
	stopPatience = 12 * time.Second
)

// Process is a process of afterwrite. It may be restarted any number of times; its address stays the same.
type Process struct {
	Name string // the subcommand and a number, such as "api-0"
	URL  string // http://127.0.0.1:port
	Log  string // the path of its log

	program local.Program
	current atomic.Pointer[local.Process] // nil if it was not started, or was stopped or killed
	scraped time.Time                     // the time of the last read of its metrics
}

// Start starts a process of afterwrite and blocks for at most 20 s until it is ready. settings are NAME=value; all other settings
// have their defaults. Stop, StopAll and World.Stop end the process.
func (s *Stage) Start(ctx context.Context, sub string, settings ...string) (*Process, error) {
	p, err := s.Launch(sub, settings...)
	if err != nil {
		return nil, err
	}
	return p, p.Ready(ctx)
}

// Launch is like Start, but does not wait until the process is ready.
func (s *Stage) Launch(sub string, settings ...string) (*Process, error) {
	addr, port, err := freeAddress()
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
			Ports: []int{port},
		},
	}
	s.processes = append(s.processes, p)
	return p, p.Start()
}

// freeAddress returns 127.0.0.1 with a free port, and the port.
func freeAddress() (addr string, port int, err error) {
	port, err = local.FreePort()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), port, err
}

// addressOf returns the setting for the listen address.
func addressOf(sub, addr string) string {
	return "AFTERWRITE_" + strings.ToUpper(sub) + "_ADDR=" + addr
}

// environment returns os.Environ with the stage's URLs and settings. It drops inherited AFTERWRITE_* and PORT, so
// that every run has the same settings.
func (s *Stage) environment(settings ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "AFTERWRITE_") || strings.HasPrefix(variable, "PORT=")
	})
	env = append(env, "REDIS_URL="+s.RedisURL, "DATABASE_URL="+s.DatabaseURL)
	return slices.Concat(env, s.world.options.Settings, s.settings, settings)
}

// Start starts the process, for the first time or after it has ended. It does not wait until the process is ready.
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

// Ready blocks for at most 20 s until /readyz succeeds. It returns an error as soon as the process ends, and
// if it was stopped or killed before.
func (p *Process) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	running := p.current.Load()
	if running == nil {
		return fmt.Errorf("%s is not running: it was not started, or was stopped or killed", p.Name)
	}
	return running.Await(ctx, local.Answers(p.URL+"/readyz"))
}

// Pid returns the process ID; 0 if the process was stopped or killed.
func (p *Process) Pid() int {
	if running := p.current.Load(); running != nil {
		return running.Pid()
	}
	return 0
}

// Running reports whether the process is running.
func (p *Process) Running() bool {
	running := p.current.Load()
	return running != nil && running.Running()
}

// Signal sends a signal, and reports whether the process was running.
func (p *Process) Signal(signal os.Signal) bool {
	running := p.current.Load()
	return running != nil && running.Signal(signal)
}

// Ended blocks until the process has ended or ctx is done. It returns the exit state, or nil if the process is
// still running, or was ended by Kill or Stop.
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

// Kill ends the process with SIGKILL, and blocks until it has ended. It returns false if the process was not running.
func (p *Process) Kill() bool {
	running := p.current.Load()
	if running == nil || !running.Running() || !p.current.CompareAndSwap(running, nil) {
		return false
	}
	running.Kill()
	return true
}

// Stop sends SIGTERM and blocks until the process has ended. After 12 s it kills the process. An exit status other than 0 is an
// error, even if the process ended before Stop. For a process that was stopped or killed before, Stop does nothing.
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

// StopAll stops all processes of the stage at the same time.
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

// Drain runs `afterwrite worker --drain`, which ends when no key is dirty, and returns the CPU time of that process.
func (s *Stage) Drain(ctx context.Context) (time.Duration, error) {
	addr, _, err := freeAddress()
	if err != nil {
		return 0, err
	}
	state, err := s.run(ctx, []string{addressOf("worker", addr)}, "worker", "--drain")
	if err != nil {
		return 0, err
	}
	return state.UserTime() + state.SystemTime(), nil
}

// Output runs the program to its end, and returns what it wrote to stdout. An exit status other than 0 is an error.
func (s *Stage) Output(ctx context.Context, args ...string) (string, error) {
	return local.Program{Name: strings.Join(args, " "), Path: s.program, Args: args, Env: s.environment()}.Output(ctx)
}

// run runs the program and waits until it ends.
func (s *Stage) run(ctx context.Context, settings []string, args ...string) (*os.ProcessState, error) {
	p, err := local.Program{
		Name: strings.Join(args, " "), Path: s.program, Args: args, Env: s.environment(settings...),
	}.Run(ctx)
	if err != nil {
		return nil, err
	}
	return p.State(), nil
}
