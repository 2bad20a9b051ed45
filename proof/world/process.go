package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	readyPatience = 20 * time.Second
	// stopPatience is how long a process may take to end after a SIGTERM. It promises ten seconds.
	stopPatience = 12 * time.Second
)

// Process is one of afterwrite's.
type Process struct {
	Name string // the subcommand
	URL  string // http://127.0.0.1:port
	PID  int

	cmd     *exec.Cmd
	done    chan struct{}
	err     error     // how it ended; read it after done is closed only
	scraped time.Time // when its metrics were last read
}

// Start starts a process of afterwrite with its default settings, and those given as NAME=value, and blocks until it is
// ready: for 20 s at most. It is stopped by Stop, StopAll or World.Close.
func (s *Stage) Start(ctx context.Context, sub string, settings ...string) (*Process, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.program, sub) //nolint:gosec,noctx // what we have built; it outlives the ctx of its start
	cmd.Env = s.environment(append(settings, addressOf(sub, addr))...)
	cmd.Stdout, cmd.Stderr = s.world.logs, s.world.logs
	cmd.SysProcAttr = procAttr()

	p := &Process{Name: sub, URL: "http://" + addr, cmd: cmd, done: make(chan struct{})}
	if err := p.run(); err != nil {
		return nil, fmt.Errorf("start %s: %w", sub, err)
	}
	s.processes = append(s.processes, p)
	return p, s.Await(ctx, readyPatience, sub+" to be ready", p.ready)
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

// environment is that of this process without settings of afterwrite's that somebody may have made, which would make two runs
// differ.
func (s *Stage) environment(settings ...string) []string {
	var env []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "AFTERWRITE_") && !strings.HasPrefix(variable, "PORT=") {
			env = append(env, variable)
		}
	}
	return append(append(env, "REDIS_URL="+s.RedisURL, "DATABASE_URL="+s.DatabaseURL), settings...)
}

// run starts the process on a thread of its own, because the parent death signal fires when the thread that forked ends
// (prctl(2), PR_SET_PDEATHSIG).
func (p *Process) run() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	p.PID = p.cmd.Process.Pid
	return nil
}

func (p *Process) ready(ctx context.Context) (bool, error) {
	select {
	case <-p.done:
		return false, fmt.Errorf("it ended: %w", errors.Join(p.err, errEnded))
	default:
	}
	response, err := get(ctx, p.URL+"/readyz")
	if err != nil {
		return false, nil // it does not listen yet
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK, nil
}

// errEnded is a process that ended by itself.
var errEnded = errors.New("see its log")

func get(ctx context.Context, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}

// Metrics reads /metrics.
func (p *Process) Metrics(ctx context.Context) (Metrics, error) {
	p.scraped = time.Now()
	response, err := get(ctx, p.URL+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", p.Name, err)
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", p.Name, err)
	}
	return families, nil
}

// Metrics are the families of a process's metrics, by name.
type Metrics map[string]*dto.MetricFamily

// Sum adds up a counter over its labels; 0 where there is none of that name.
func (m Metrics) Sum(name string) float64 {
	var sum float64
	for _, metric := range m[name].GetMetric() {
		sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	return sum
}

// SumOf is Sum over the series whose label has that value.
func (m Metrics) SumOf(name, label, value string) float64 {
	var sum float64
	for _, metric := range m[name].GetMetric() {
		for _, pair := range metric.GetLabel() {
			if pair.GetName() == label && pair.GetValue() == value {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// Stop ends the process with SIGTERM and waits for it: for 12 s, then it is killed. A second call does nothing.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // the only failure is that it has ended
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %v: %w", p.Name, stopPatience, errEnded)
	}
	if p.err != nil {
		return fmt.Errorf("%s ended: %w", p.Name, p.err)
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
	cmd := exec.CommandContext(ctx, s.program, args...) //nolint:gosec // what we have built
	cmd.Env = s.environment(settings...)
	cmd.Stdout, cmd.Stderr = s.world.logs, s.world.logs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", strings.Join(args, " "), err, errEnded)
	}
	return cmd.ProcessState, nil
}
