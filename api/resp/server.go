package resp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/api/auth"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// Counters carries out operations. *writepath.Service implements it.
type Counters interface {
	// Do carries out operations in order and returns a result for each. Every Err is a *counter.Error.
	Do(ctx context.Context, ops []counter.Operation, options writepath.Options) []counter.Result
}

// Lister lists counters for SCAN. *catalog.Catalog implements it.
type Lister interface {
	// List returns a page of the counters whose keys begin with prefix and are greater than after. Every error is a *counter.Error.
	List(ctx context.Context, prefix string, after counter.Key, limit int) (catalog.Page, error)
}

// Options are optional: the zero value works.
type Options struct {
	// Logger gets the log: failures, panics and, at debug level, every pipeline. Nil: no log.
	Logger *slog.Logger
	// Metrics gets the metrics. Nil: a new registry, which nothing reads.
	Metrics prometheus.Registerer
	// Keys are the API keys. Nil: everybody may read and write, without a limit.
	Keys *auth.Keyring
	// Recorded reports whether a counter has a history. It must not block. Nil: none has.
	Recorded func(key counter.Key) bool
	// Lister lists counters for SCAN. Nil: SCAN is refused.
	Lister Lister
	// Backlog counts the dirty keys for INFO. Nil: INFO has no section afterwrite.
	Backlog func(ctx context.Context) (cache.Backlog, error)
	// Durability is that of writes without WAIT, and Replicas the number of replicas that confirm a write for WAIT.
	Durability writepath.Durability
	Replicas   int
	// Tracing makes a span of each pipeline. Nil: no spans.
	Tracing trace.TracerProvider
	// Version is the program's version, for INFO.
	Version string
}

// Server serves the protocol: see New.
type Server struct {
	Options

	counters Counters
	metrics  *metrics
	failures *rate.Limiter // of log lines
	tracer   trace.Tracer  // nil: no spans
	large    *semaphore.Weighted
	cursors  *cursors
	backlog  backlogs
	began    time.Time
	lastID   atomic.Int64
	limits   limits
	debug    bool
	commands map[string]*command

	mu          sync.Mutex
	connections map[*connection]struct{}
	stopping    bool
}

// limits are the bounds that tests change.
type limits struct {
	connections                        int
	idle, login, command, write, grace time.Duration
	wait                               time.Duration
}

// grace is how long connections may finish at shutdown what they have received; as over HTTP.
const grace = 7 * time.Second

// New returns a Server.
func New(counters Counters, o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	if o.Keys == nil {
		o.Keys = auth.Open()
	}
	if o.Recorded == nil {
		o.Recorded = func(counter.Key) bool { return false }
	}
	s := &Server{
		Options: o, counters: counters,
		failures: rate.NewLimiter(failuresPerSecond, failuresBurst), large: semaphore.NewWeighted(largeBudgetBytes),
		cursors: newCursors(), began: time.Now(), debug: o.Logger.Enabled(context.Background(), slog.LevelDebug),
		limits: limits{
			connections: maxConnections, idle: idleTimeout, login: loginTimeout, command: commandTimeout, write: writeTimeout, grace: grace,
			wait: maxWait,
		},
		connections: make(map[*connection]struct{}),
	}
	s.metrics, s.commands = newMetrics(o.Metrics, s.open), table()
	for name, cmd := range s.commands {
		cmd.total = s.metrics.commands.WithLabelValues(name)
	}
	if o.Tracing != nil {
		s.tracer = o.Tracing.Tracer("github.com/afterwrite/afterwrite/api/resp")
	}
	return s
}

// open returns the number of open connections.
func (s *Server) open() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(len(s.connections))
}

// Serve accepts connections until ctx is done, with TLS unless encryption is nil. Then each connection carries out and answers what it has
// received, and ends; after a grace they are aborted, and the error is context.DeadlineExceeded. Any other error means that the server
// failed. Serve closes the listener. Call it once.
func (s *Server) Serve(ctx context.Context, listener net.Listener, encryption *tls.Config) error {
	base, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	if encryption != nil {
		encryption = encryption.Clone()
		encryption.NextProtos = nil // HTTP's
	}
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	s.Logger.Info("listening for the Redis protocol", "at", listener.Addr().String())
	var running sync.WaitGroup
	err := s.accept(base, listener, encryption, &running)
	_ = listener.Close()
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, s.stop(&running))
}

// acceptPause is the pause after a failure to accept a connection, such as too many open files.
const acceptPause = 50 * time.Millisecond

// accept serves connections until the listener is closed.
func (s *Server) accept(ctx context.Context, listener net.Listener, encryption *tls.Config, running *sync.WaitGroup) error {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("serve the Redis protocol: %w", err)
		}
		if err != nil {
			s.Logger.Warn("a connection was not accepted", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		if encryption != nil {
			conn = tls.Server(conn, encryption)
		}
		c := s.connect(ctx, conn)
		if c == nil {
			running.Go(func() { s.refuse(conn) })
			continue
		}
		running.Go(c.serve)
	}
}

// connect adds a connection; it returns nil if there are too many, or the server stops.
func (s *Server) connect(ctx context.Context, conn net.Conn) *connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.connections) >= s.limits.connections {
		return nil
	}
	c := newConnection(ctx, s, conn)
	s.connections[c] = struct{}{}
	return c
}

// refuse answers a connection that is one too many. The text is Redis's.
func (s *Server) refuse(conn net.Conn) {
	s.metrics.refused.Inc()
	_ = conn.SetDeadline(time.Now().Add(lingerTimeout))
	_, _ = conn.Write([]byte("-ERR max number of clients reached\r\n"))
	_ = conn.Close()
}

// disconnect removes a connection.
func (s *Server) disconnect(c *connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.connections, c)
}

// stop ends all connections: those that wait for input at once, others when they have answered.
func (s *Server) stop(running *sync.WaitGroup) error {
	s.mu.Lock()
	s.stopping = true
	for c := range s.connections {
		c.stop()
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		running.Wait()
		close(ended)
	}()
	timer := time.NewTimer(s.limits.grace)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
	}
	s.mu.Lock()
	for c := range s.connections {
		c.abort()
	}
	s.mu.Unlock()
	<-ended
	return fmt.Errorf("aborted connections that did not end within %s: %w", s.limits.grace, context.DeadlineExceeded)
}

// Bounds on the log of failures; as over HTTP.
const (
	failuresPerSecond = 10
	failuresBurst     = 100
)

// logFailure logs the cause of an error, which the client does not get. Internal errors are bugs, and are always logged.
func (s *Server) logFailure(ctx context.Context, c *connection, e *counter.Error, operations int) {
	level := slog.LevelWarn
	switch {
	case e.Code == counter.CodeInternal:
		level = slog.LevelError
	case e.Err == nil || !s.failures.Allow():
		return
	}
	s.Logger.Log(ctx, level, "commands failed",
		"protocol", "resp", "connection", c.id, "code", string(e.Code), "operations", operations, "error", e.Err)
}

// logHTTP logs that a connection has sent a request over HTTP.
func (s *Server) logHTTP(c *connection) {
	if s.failures.Allow() {
		s.Logger.Warn("a request over HTTP came to the port of the Redis protocol", "protocol", "resp", "connection", c.id,
			"from", c.RemoteAddr().String())
	}
}

// recovered logs a panic of a connection, which ends the connection only.
func (s *Server) recovered(c *connection, v any) {
	s.Logger.Error("panic", "protocol", "resp", "connection", c.id, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
