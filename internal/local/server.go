package local

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// startPatience bounds a start, including crash recovery of a small database.
	startPatience = 60 * time.Second
	// stopPatience bounds a graceful stop.
	stopPatience = 10 * time.Second
	// retryPause is the pause before a failed start is retried.
	retryPause = 100 * time.Millisecond
	// retriesMax bounds the attempts, to 5 s.
	retriesMax = 50
)

// server is the common part of Redis and Postgres: at most one process on one folder, which can be started and stopped repeatedly. It
// is safe for concurrent use.
type server struct {
	name string // in errors
	dir  string // locked while the process runs
	port int    // on 127.0.0.1; 0: a unix socket. It does not change after the first Start
	// prepare prepares the folder and returns the program to run.
	prepare func(ctx context.Context) (Program, error)
	// ping returns nil if the server answers queries.
	ping func(ctx context.Context) error
	// passing reports whether a failed start can succeed soon; nil: never.
	passing func(err error) bool

	// settled is true once callers have the address. Then Start retries while the port is taken.
	settled  atomic.Bool
	starting sync.Mutex              // held during Start
	current  atomic.Pointer[Process] // not nil once StartRedis or StartPostgres has returned
}

// Start starts the server again after Stop, Kill or a crash, with the same data and address, and blocks until it answers queries, at
// most until ctx is done or for 60 s. If the server is running, it does nothing.
//
// ctx bounds only the start: the server runs until Stop or Kill, or until this process ends.
func (s *server) Start(ctx context.Context) error {
	s.starting.Lock()
	defer s.starting.Unlock()

	if p := s.current.Load(); p != nil && p.Running() {
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
	program, err := s.prepare(ctx)
	if err != nil {
		_ = unlock()
		return err
	}
	program.Name, program.OnExit = s.name, func() { _ = unlock() }
	program.Ports = []int{s.port}
	process, err := program.Start()
	if err != nil {
		_ = unlock()
		return err
	}
	s.current.Store(process)

	err = process.Await(ctx, s.ping)
	if err == nil {
		return nil
	}
	process.Kill()
	if strings.Contains(process.LastLog(), "Address already in use") { // strerror of EADDRINUSE under LC_ALL=C
		return portTaken(s.name, s.port)
	}
	return err
}

// Stop stops the server gracefully, so that no acknowledged write is lost, and blocks until it has ended. After 10 s, or when ctx is
// done, it kills the server and returns ErrKilled. Stopping a server that is not running is no error.
func (s *server) Stop(ctx context.Context) error { return s.current.Load().Stop(ctx, stopPatience) }

// Kill ends the server and its children with SIGKILL, like a crash, and blocks until it is reaped. The data folder stays as it is.
func (s *server) Kill() { s.current.Load().Kill() }

// Pid returns the process ID of the server, or of its last run.
func (s *server) Pid() int { return s.current.Load().Pid() }

// Done returns a channel that is closed when the server ends. Every Start makes a new channel.
func (s *server) Done() <-chan struct{} { return s.current.Load().Done() }

// Err returns how the server ended (ErrExited), with the last lines of its log; nil while it runs.
func (s *server) Err() error {
	p := s.current.Load()
	if p.Running() {
		return nil
	}
	return p.exitError()
}

// LastLog returns the last lines of the server's output, at most 12.
func (s *server) LastLog() string { return s.current.Load().LastLog() }

// Dir returns the real folder of the data. It differs from the option Dir if postgres's user has no access to that.
func (s *server) Dir() string { return s.dir }

// startAnywhere starts a server on a free port. If another process takes the port before, it chooses another.
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
