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
	// startPatience bounds a start whose ctx has no deadline, crash recovery of a small database included.
	startPatience = 60 * time.Second
	// stopPatience bounds a graceful stop whose ctx has no earlier deadline.
	stopPatience = 10 * time.Second
	// retryPause is the pause before a start that failed for a passing reason is tried again.
	retryPause = 100 * time.Millisecond
	// retriesMax bounds those attempts: 5 s.
	retriesMax = 50
)

// server is what Redis and Postgres have in common: one process at a time on one folder, started and stopped any number of times.
// It is safe for concurrent use.
type server struct {
	name string // as users know it
	dir  string // locked while the process lives
	port int    // on 127.0.0.1; 0: a unix socket. Set before the first Start, fixed after it
	// prepare makes the folder ready and says what to run.
	prepare func(ctx context.Context) (Program, error)
	// ping is nil once the server answers queries.
	ping func(ctx context.Context) error
	// passing tells whether a failed start has a reason that goes away soon; nil: never.
	passing func(err error) bool

	// settled: callers know the address, so the next Start must not give up while the port is taken for a moment.
	settled  atomic.Bool
	starting sync.Mutex              // held for a whole Start
	current  atomic.Pointer[Process] // set for good once StartRedis or StartPostgres has returned
}

// Start starts the server again after Stop, Kill or a crash, on the same data and at the same address, and blocks until it
// answers queries: at most until ctx is done, or 60 s. A server that runs already is left as it is.
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

// Stop ends the server gracefully, so that nothing it acknowledged is lost, and blocks until it has ended: at most until ctx is
// done, or 10 s; then it is killed, and the error is ErrKilled. Stopping a server that does not run is no error.
func (s *server) Stop(ctx context.Context) error { return s.current.Load().Stop(ctx, stopPatience) }

// Kill ends the server and its children at once with SIGKILL, as a crash would, and blocks until it is reaped. The data stays as
// the server had written it.
func (s *server) Kill() { s.current.Load().Kill() }

// Pid is the process ID of the server, or of its last run.
func (s *server) Pid() int { return s.current.Load().Pid() }

// Done is closed when the server has ended, whatever the reason. Every Start makes a new channel: ask again after it.
func (s *server) Done() <-chan struct{} { return s.current.Load().Done() }

// Err tells how the server ended, with the last lines of its log (ErrExited); nil while it runs.
func (s *server) Err() error {
	p := s.current.Load()
	if p.Running() {
		return nil
	}
	return p.exitError()
}

// LastLog is the end of the server's output, at most 12 lines.
func (s *server) LastLog() string { return s.current.Load().LastLog() }

// Dir is where the data really is: not the folder that was asked for, when postgres could not reach that one.
func (s *server) Dir() string { return s.dir }

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
