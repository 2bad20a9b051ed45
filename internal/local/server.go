package local

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// startPatience bounds a start whose ctx has no deadline, crash recovery of a small database included.
	startPatience = 60 * time.Second
	// stopPatience bounds a graceful stop whose ctx has no earlier deadline.
	stopPatience = 10 * time.Second
	// pollEvery is the pause between two attempts to connect.
	pollEvery = 20 * time.Millisecond
	// retryPause is the pause before a start that failed for a passing reason is tried again.
	retryPause = 100 * time.Millisecond
	// retriesMax bounds those attempts: 5 s.
	retriesMax = 50
)

// server is what Redis and Postgres have in common: one child at a time on one folder, started and stopped any number of times.
// It is safe for concurrent use.
type server struct {
	name       string // as users know it
	dir        string // locked while the child lives
	port       int    // on 127.0.0.1; 0: a unix socket. Set before the first Start, fixed after it
	stopSignal syscall.Signal
	// launch starts the child; onExit must be handed to it.
	launch func(ctx context.Context, onExit func()) (*child, error)
	// ping is nil once the server answers queries.
	ping func(ctx context.Context) error
	// passing tells whether a failed start has a reason that goes away soon; nil: never.
	passing func(err error) bool

	// settled: callers know the address, so the next Start must not give up while the port is taken for a moment.
	settled  atomic.Bool
	starting sync.Mutex // held for a whole Start
	mu       sync.Mutex
	current  *child
}

// Start starts the server again after Stop, Kill or a crash, on the same data and at the same address, and blocks until it
// answers queries: at most until ctx is done, or 60 s. A server that runs already is left as it is.
//
// ctx bounds only the start: the server runs until Stop or Kill, or until this process ends.
func (s *server) Start(ctx context.Context) error {
	s.starting.Lock()
	defer s.starting.Unlock()

	if c := s.child(); c != nil && c.running() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()

	for attempt := 1; ; attempt++ {
		err := s.startOnce(ctx)
		if err == nil || attempt == retriesMax || !s.worthRetry(err) || wait(ctx, retryPause) != nil {
			return err
		}
	}
}

func (s *server) worthRetry(err error) bool {
	return s.settled.Load() && errors.Is(err, ErrPortTaken) || s.passing != nil && s.passing(err)
}

func (s *server) startOnce(ctx context.Context) error {
	unlock, err := Lock(s.dir)
	if err != nil {
		return err
	}
	c, err := s.launch(ctx, func() { _ = unlock() })
	if err != nil {
		_ = unlock()
		return err
	}
	s.mu.Lock()
	s.current = c
	s.mu.Unlock()

	if err := s.awaitReady(ctx, c); err != nil {
		c.kill()
		return err
	}
	return nil
}

// awaitReady pings until the server answers, ends, or ctx is done.
func (s *server) awaitReady(ctx context.Context, c *child) error {
	for {
		err := s.ping(ctx)
		if err == nil && c.running() {
			return nil
		}
		timer := time.NewTimer(pollEvery)
		select {
		case <-c.done:
			timer.Stop()
			if strings.Contains(c.log.String(), "Address already in use") { // strerror of EADDRINUSE under LC_ALL=C
				return portTaken(s.name, s.port)
			}
			return s.exitError(c)
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("start %s: no answer in time (%w); last error: %w", s.name, ctx.Err(), err)
		case <-timer.C:
		}
	}
}

// Stop ends the server gracefully, so that nothing it acknowledged is lost, and blocks until it has ended: at most until ctx is
// done, or 10 s; then it is killed, and the error is ErrKilled. Stopping a server that does not run is no error.
func (s *server) Stop(ctx context.Context) error {
	c := s.child()
	if c == nil || !c.running() {
		return nil
	}
	if !c.stop(ctx, s.stopSignal, stopPatience) {
		return problemf(ErrKilled, "%s did not stop in time and was killed", s.name)
	}
	return nil
}

// Kill ends the server and its children at once with SIGKILL, as a crash would, and blocks until it is reaped. The data stays as
// the server had written it.
func (s *server) Kill() {
	if c := s.child(); c != nil {
		c.kill()
	}
}

// Pid is the process ID of the server, or of its last run.
func (s *server) Pid() int {
	if c := s.child(); c != nil {
		return c.pid()
	}
	return 0
}

// Done is closed when the server has ended, whatever the reason. Every Start makes a new channel: ask again after it.
func (s *server) Done() <-chan struct{} {
	if c := s.child(); c != nil {
		return c.done
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// Err tells how the server ended, with the last lines of its log (ErrExited); nil while it runs.
func (s *server) Err() error {
	c := s.child()
	if c == nil || c.running() {
		return nil
	}
	return s.exitError(c)
}

// LastLog is the end of the server's output, at most 12 lines.
func (s *server) LastLog() string {
	if c := s.child(); c != nil {
		return c.log.String()
	}
	return ""
}

// Dir is where the data really is: not the folder that was asked for, when postgres could not reach that one.
func (s *server) Dir() string { return s.dir }

func (s *server) child() *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *server) exitError(c *child) error {
	state := "exit status 0"
	if c.err != nil {
		state = c.err.Error()
	}
	return problemf(ErrExited, "%s ended: %s; the last lines of its log:\n%s", s.name, state, c.log)
}

// startAnywhere starts a server whose port nobody asked for: when another process wins the race for the port, it picks again.
func (s *server) startAnywhere(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		port, err := FreePort()
		if err != nil {
			return err
		}
		s.port = port
		err = s.Start(ctx)
		if err == nil || !errors.Is(err, ErrPortTaken) || attempt == portTries {
			return err
		}
	}
}
