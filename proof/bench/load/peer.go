package load

import (
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

	readyPatience = 20 * time.Second // time limit for a start
	stopPatience  = 10 * time.Second // time limit for a stop
)

// Process is a running peer.
type Process struct {
	URL      string // http://127.0.0.1:port
	RedisURL string // of noop: redis://127.0.0.1:port/0, for the Redis protocol

	child *local.Process
}

// Build builds the program of the peers into dir, with the flags of afterwrite itself. The current folder must be in the module.
func Build(ctx context.Context, dir string) error {
	return world.Build(ctx, "", filepath.Join(dir, "peer"), peers)
}

// StartPeer runs one of the peers of the program that Build has built in dir, on a free port: noop, direct, through, naive, or
// naive-worker, which executes the tasks of naive. It blocks for at most 20 s until the peer is ready. The database must have
// afterwrite's tables.
func StartPeer(ctx context.Context, dir, name, redisURL, databaseURL string) (*Process, error) {
	var addrs [2]string
	for i := range addrs {
		port, err := local.FreePort()
		if err != nil {
			return nil, err
		}
		addrs[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	p, err := start(ctx, local.Program{
		Name: name, Path: filepath.Join(dir, "peer"), Args: []string{name},
		Env: append(os.Environ(),
			"ADDR="+addrs[0], "RESP_ADDR="+addrs[1], "REDIS_URL="+redisURL, "DATABASE_URL="+databaseURL),
	}, "http://"+addrs[0], "/healthz")
	if err != nil {
		return nil, err
	}
	p.RedisURL = "redis://" + addrs[1] + "/0"
	return p, nil
}

// start runs a program and waits until GET url+path returns 200.
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

// Stop sends SIGTERM and blocks until the process has ended. After 10 s it kills the process. An end by anything but exit status 0 or
// SIGTERM is an error.
func (p *Process) Stop() error {
	err := p.child.Stop(context.Background(), stopPatience)
	status, ok := p.child.State().Sys().(syscall.WaitStatus)
	if err == nil && (!ok || status.ExitStatus() != 0 && status.Signal() != syscall.SIGTERM) {
		err = errors.New(p.child.State().String())
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", p.URL, err)
	}
	return nil
}

// Left returns the number of tasks that a naive-worker still has to execute.
func (p *Process) Left(ctx context.Context) (int, error) {
	body, err := world.Get(ctx, p.URL+"/left")
	if err != nil {
		return 0, fmt.Errorf("read the number of tasks left: %w", err)
	}
	var answer struct {
		Left int `json:"left"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, fmt.Errorf("read the number of tasks left: %w", err)
	}
	return answer.Left, nil
}
