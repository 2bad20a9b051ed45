package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
)

// connector opens the sessions of a pool. If the URL has several hosts, it first tries the one that it reached last.
//
// If a caller gives up, its login continues, and the session is kept for the next caller. Otherwise callers that wait for 100 ms
// could never reach a remote Postgres, since a login with TLS takes 5 to 8 round trips.
type connector struct {
	config pq.Config
	limit  time.Duration // see boundedConn
	logger *slog.Logger
	begin  string      // a statement to run at the start of each transaction; "": none
	bare   atomic.Bool // the pooler refuses our settings as startup parameters

	reached    atomic.Pointer[string] // the address of the last login; nil: none yet
	generation atomic.Int64           // sessions of an earlier one are closed instead of used

	ctx    context.Context //nolint:containedctx // canceled by Close
	cancel context.CancelFunc
	logins sync.WaitGroup

	mu      sync.Mutex
	callers []chan login  // the waiting callers, in order; each channel has a buffer of 1
	running int           // logins in progress, at least as many as callers
	spare   []driver.Conn // sessions of callers that gave up
}

// login is the result of a login.
type login struct {
	conn driver.Conn
	err  error
}

// maxSpare is the maximum number of spare sessions.
const maxSpare = 2

func newConnector(config pq.Config, limit time.Duration, logger *slog.Logger) *connector {
	ctx, cancel := context.WithCancel(context.Background())
	return &connector{config: config, limit: limit, logger: logger, ctx: ctx, cancel: cancel}
}

// Connect implements driver.Connector. It returns when ctx is done, even if the server does not answer.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	c.mu.Lock()
	if c.ctx.Err() != nil {
		defer c.mu.Unlock()
		return nil, sql.ErrConnDone
	}
	for n := len(c.spare); n > 0; n-- {
		conn := c.spare[n-1]
		c.spare = c.spare[:n-1]
		if c.usable(conn) {
			c.mu.Unlock()
			return conn, nil
		}
		_ = conn.Close()
	}
	answer := make(chan login, 1)
	c.callers = append(c.callers, answer)
	if c.running < len(c.callers) {
		c.running++
		c.logins.Go(func() { c.finish(c.login()) })
	}
	c.mu.Unlock()

	select {
	case l := <-answer:
		return l.conn, l.err
	case <-ctx.Done():
		c.giveUp(answer)
		return nil, ctx.Err()
	}
}

// Driver implements driver.Connector.
func (*connector) Driver() driver.Driver { return &pq.Driver{} }

// retire makes the pool close the sessions of a generation and those before it, instead of using them again: the server has turned
// read-only, has shut down or does not answer, and there may be a new primary.
func (c *connector) retire(generation int64) { c.generation.CompareAndSwap(generation, generation+1) }

// retireAfter retires all sessions after a failure which means that their server is gone, so that the next call does not wait for it.
func (c *connector) retireAfter(err error) {
	if isGone(err) {
		c.retire(c.generation.Load())
	}
}

// usable reports whether a spare session was opened since the last retire.
func (*connector) usable(conn driver.Conn) bool {
	s, ok := conn.(*session)
	return !ok || s.IsValid()
}

// address returns the address of the last login; "" if there was none.
func (c *connector) address() string {
	if reached := c.reached.Load(); reached != nil {
		return *reached
	}
	return ""
}

// Close ends the logins in progress and the spare sessions. sql.DB.Close calls it.
func (c *connector) Close() error {
	c.mu.Lock()
	c.cancel() // under the lock, so that no login starts during Wait
	c.mu.Unlock()
	c.logins.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.spare {
		_ = conn.Close()
	}
	c.spare = nil
	return nil
}

// finish hands the result of a login to the first waiting caller.
func (c *connector) finish(conn driver.Conn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if len(c.callers) > 0 {
		c.callers[0] <- login{conn, err}
		c.callers = c.callers[1:]
		return
	}
	c.keep(conn)
}

// giveUp removes a caller from the queue. If it has just got a session, keep gets that.
func (c *connector) giveUp(answer chan login) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.callers, answer); i >= 0 {
		c.callers = slices.Delete(c.callers, i, i+1)
		return
	}
	c.keep((<-answer).conn)
}

// keep adds conn to the spare sessions, or closes it if there are enough. The caller holds mu. conn is nil if the login failed.
func (c *connector) keep(conn driver.Conn) {
	switch {
	case conn == nil:
	case len(c.spare) < maxSpare && c.ctx.Err() == nil:
		c.spare = append(c.spare, conn)
	default:
		_ = conn.Close()
	}
}

// login opens a session, within connect_timeout.
func (c *connector) login() (driver.Conn, error) {
	if c.bare.Load() {
		return c.dial(withoutTimeouts(c.config))
	}
	conn, err := c.dial(c.config)
	if err == nil || !refusesSettings(err) {
		return conn, err
	}
	if !c.bare.Swap(true) {
		c.logger.Warn("a pooler refuses statement_timeout and lock_timeout as startup parameters, so they are not set: "+
			"set them on the role, or see PgBouncer's ignore_startup_parameters", "error", err)
	}
	return c.dial(withoutTimeouts(c.config))
}

func (c *connector) dial(config pq.Config) (driver.Conn, error) {
	// lib/pq ends connect_timeout before it asks an old server whether it is a primary.
	dialer := &sessionDialer{limit: config.ConnectTimeout}
	if config.LoadBalanceHosts != pq.LoadBalanceHostsRandom {
		config = beginningWith(config, c.address())
	}
	inner, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, err
	}
	inner.Dialer(dialer)

	stop := context.AfterFunc(c.ctx, dialer.abort) // lib/pq ignores the context once the TCP connection is open
	defer stop()
	conn, err := inner.Connect(c.ctx)
	if err != nil {
		return nil, err
	}
	// Its server has just answered, so a retire during the login does not concern it. Otherwise callers that wait for less than a login
	// takes would retire each session before it could be used.
	generation := c.generation.Load()
	network, address := dialer.establish(c.limit)
	c.reached.Store(&address)
	s, err := newSession(conn, network, c.begin)
	if err != nil {
		return nil, err
	}
	s.pool, s.generation = c, generation
	return s, nil
}

// refusesSettings recognizes PgBouncer's error for a startup parameter that it does not support: FATAL 08P01, "unsupported startup
// parameter: statement_timeout".
func refusesSettings(err error) bool {
	e := pq.As(err, "08P01")
	return e != nil && strings.Contains(e.Message, "startup parameter") &&
		(strings.Contains(e.Message, settingStatementTimeout) || strings.Contains(e.Message, settingLockTimeout))
}
