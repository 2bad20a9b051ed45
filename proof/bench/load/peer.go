package load

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	peers = "github.com/afterwrite/afterwrite/proof/bench/peer"

	// readyPatience bounds a start, stopPatience an end.
	readyPatience = 20 * time.Second
	stopPatience  = 10 * time.Second

	defaultPostgresConns = 20
)

// Env is what a peer needs to know.
type Env struct {
	RedisURL      string
	DatabaseURL   string // of a database with the migrations
	PostgresConns int    // 0 takes 20
}

// Process is a running peer.
type Process struct {
	URL string // http://127.0.0.1:port

	child *local.Process
}

// Build compiles the program of the peers into dir, as the product is built. It has to run inside the module.
func Build(ctx context.Context, dir string) error {
	return world.Build(ctx, "", filepath.Join(dir, "peer"), peers)
}

// StartPeer runs one of the peers that Build has put into dir (noop, direct, through, naive, or naive-worker, which flushes for
// naive) on a free port, and blocks until it answers: for 20 s at most.
func StartPeer(ctx context.Context, dir, name string, env Env) (*Process, error) {
	port, err := local.FreePort()
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	return start(ctx, local.Program{
		Name: name, Path: filepath.Join(dir, "peer"), Args: []string{name},
		Env: append(os.Environ(),
			"ADDR="+addr, "REDIS_URL="+env.RedisURL, "DATABASE_URL="+env.DatabaseURL,
			"POSTGRES_CONNS="+strconv.Itoa(cmp.Or(env.PostgresConns, defaultPostgresConns))),
	}, "http://"+addr, "/healthz")
}

// start runs a program and waits until GET url+path is answered with 200.
func start(ctx context.Context, program local.Program, url, path string) (*Process, error) {
	child, err := program.Start()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	if err := child.Await(ctx, local.Answers(url+path)); err != nil {
		child.Kill()
		return nil, err
	}
	return &Process{URL: url, child: child}, nil
}

// Stop ends the process and waits for it: for 10 s, then it is killed. An error means that it did not end well.
func (p *Process) Stop() error {
	err := p.child.Stop(context.Background(), stopPatience)
	// A program that does not handle SIGTERM is ended by it.
	status, ok := p.child.State().Sys().(syscall.WaitStatus)
	if err == nil && (!ok || status.ExitStatus() != 0 && status.Signal() != syscall.SIGTERM) {
		err = errors.New(p.child.State().String())
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.URL, err)
	}
	return nil
}

// Left asks a naive worker how many tasks are not done: it has drained when there are none.
func (p *Process) Left(ctx context.Context) (int, error) {
	body, err := world.Get(ctx, p.URL+"/left")
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
