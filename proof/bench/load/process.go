package load

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	peers = "github.com/afterwrite/afterwrite/proof/bench/peer/..."

	// readyPatience bounds a start, stopPatience an end.
	readyPatience = 20 * time.Second
	stopPatience  = 10 * time.Second
	lookEvery     = 20 * time.Millisecond

	defaultPostgresConns = 20
)

// Env is what a peer needs to know.
type Env struct {
	RedisURL      string
	DatabaseURL   string    // of a database with the migrations
	PostgresConns int       // 0 takes 20
	Args          []string  // "worker" makes the naive peer's second process
	Log           io.Writer // gets what it prints; may be nil
}

// Process is a running peer. On Linux it ends with this process, however that ends.
type Process struct {
	URL string // http://127.0.0.1:port

	command *exec.Cmd
	done    chan struct{} // closed when it has ended
	err     error         // how; read it after done
	cleanUp func()
	once    sync.Once
}

// Build compiles the peers noop, direct, through and naive into dir, as the product is built. It has to run inside the module.
func Build(ctx context.Context, dir string) error {
	// The separator makes dir a folder for several programs.
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w", //nolint:gosec // no input
		"-o", dir+string(filepath.Separator), peers)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the peers: %w: %s", err, out)
	}
	return nil
}

// StartPeer runs one of proof/bench/peer on a free port and blocks until it answers: for 20 s at most.
func StartPeer(ctx context.Context, binary string, env Env) (*Process, error) {
	port, err := local.FreePort()
	if err != nil {
		return nil, err
	}
	command := exec.Command(binary, env.Args...) //nolint:gosec,noctx // what Build has made; it outlives the ctx of its start
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	command.Env = append(os.Environ(),
		"ADDR="+addr, "REDIS_URL="+env.RedisURL, "DATABASE_URL="+env.DatabaseURL,
		"POSTGRES_CONNS="+strconv.Itoa(cmp.Or(env.PostgresConns, defaultPostgresConns)))
	command.Stdout, command.Stderr = env.Log, env.Log
	return start(ctx, command, "http://"+addr, "/healthz", func() {})
}

// start runs command and waits until GET url+path is answered with 200. cleanUp runs once, after its end.
func start(ctx context.Context, command *exec.Cmd, url, path string, cleanUp func()) (*Process, error) {
	p := &Process{URL: url, command: command, done: make(chan struct{}), cleanUp: cleanUp}
	command.SysProcAttr = procAttr()
	command.WaitDelay = time.Second // something else may hold its output
	started := make(chan error, 1)
	go func() {
		// The parent death signal fires when the thread that forked ends (prctl(2), PR_SET_PDEATHSIG), so that is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := command.Start()
		started <- err
		if err == nil {
			p.err = command.Wait()
		}
	}()
	if err := <-started; err != nil {
		cleanUp()
		return nil, fmt.Errorf("start %s: %w", filepath.Base(command.Path), err)
	}
	if err := p.ready(ctx, path); err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(command.Path), errors.Join(err, p.Stop()))
	}
	return p, nil
}

// ready waits until the process answers, or has ended.
func (p *Process) ready(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if _, err := get(ctx, p.URL+path); err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("it ended before it answered: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", ctx.Err())
		case <-ticker.C:
		}
	}
}

// PIDs are the process's, for its CPU time.
func (p *Process) PIDs() []int { return []int{p.command.Process.Pid} }

// Stop ends the process and waits for it: for 10 s, then it is killed. Later calls do nothing. An error means that it did not end
// well.
func (p *Process) Stop() error {
	var err error
	p.once.Do(func() {
		defer p.cleanUp()
		_ = p.command.Process.Signal(syscall.SIGTERM) // the only failure is that it has ended
		timer := time.NewTimer(stopPatience)
		defer timer.Stop()
		select {
		case <-p.done:
		case <-timer.C:
			_ = p.command.Process.Kill()
			<-p.done
		}
		if !endedBySignal(p.err) {
			err = fmt.Errorf("stop %s: %w", filepath.Base(p.command.Path), p.err)
		}
	})
	return err
}

// endedBySignal tells whether a process ended as it was asked to: with the code 0, or of the signal that it does not handle.
func endedBySignal(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err == nil
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGTERM
}

// Left asks a naive worker how many tasks are not done: it has drained when there are none.
func (p *Process) Left(ctx context.Context) (int, error) {
	body, err := get(ctx, p.URL+"/left")
	if err != nil {
		return 0, fmt.Errorf("ask what is left: %w", err)
	}
	var answer struct {
		Left int `json:"left"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("ask what is left: %w", err)
	}
	return answer.Left, nil
}

// client has no connections that outlive a request.
var client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// get returns the body of an answer with the status 200, up to 4 KiB.
func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", answer.StatusCode)
	}
	return io.ReadAll(io.LimitReader(answer.Body, 4<<10))
}

// runOnThread runs a command to its end on a thread that is kept for it, see start.
func runOnThread(command *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return command.Run()
}
