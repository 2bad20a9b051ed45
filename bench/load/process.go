package load

import (
	"context"
	"errors"
	"io"
)

// Env is what a peer needs to know.
type Env struct {
	RedisURL      string
	DatabaseURL   string    // of a database with the migrations
	PostgresConns int       // 0 takes 20
	Args          []string  // "worker" makes the naive peer's second process
	Log           io.Writer // gets what it prints; may be nil
}

// Process is a running peer.
type Process struct {
	URL string // http://127.0.0.1:port
}

// PIDs are the process's, for its CPU time.
func (p *Process) PIDs() []int { return nil }

// Stop ends the process and waits for it: at most for 10 s, then it is killed. A second call does nothing.
func (p *Process) Stop() error { return nil }

// Left asks a naive worker how many tasks are not done: it has drained when there is none.
func (p *Process) Left(ctx context.Context) (int, error) { return 0, errors.New("TODO") }

// Build compiles the peers noop, direct, through and naive into dir.
func Build(ctx context.Context, dir string) error { return errors.New("TODO") }

// StartPeer runs one of bench/peer and blocks until it answers.
func StartPeer(ctx context.Context, binary string, env Env) (*Process, error) {
	return nil, errors.New("TODO")
}

// Webdis runs webdis in front of a Redis and blocks until it answers.
func Webdis(ctx context.Context, redisURL string) (*Process, error) {
	return nil, errors.New("TODO")
}
