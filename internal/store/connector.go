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

// connector makes the sessions of a pool.
//
// A login goes on when the caller that wanted it gives up, and its session is kept for the next one. Else a Postgres that
// is far away (a login takes 5 to 8 round trips with TLS) could never be reached by callers that wait for 100 ms.
type connector struct {
	config pq.Config
	limit  time.Duration // see boundedConn
	logger *slog.Logger
	begin  string      // a statement that begins each transaction; "": none
	bare   atomic.Bool // the other side does not take our settings at startup

	ctx    context.Context //nolint:containedctx // its end is Close's
	cancel context.CancelFunc
	logins sync.WaitGroup

	mu      sync.Mutex
	callers []chan login  // that wait, in order; each has room for its answer
	running int           // logins under way, never fewer than callers
	spare   []driver.Conn // sessions whose callers have given up
}

// login is the outcome of one.
type login struct {
	conn driver.Conn
	err  error
}

// maxSpare bounds the sessions that are kept beside the pool.
const maxSpare = 2

func newConnector(config pq.Config, limit time.Duration, logger *slog.Logger) *connector {
	ctx, cancel := context.WithCancel(context.Background())
	return &connector{config: config, limit: limit, logger: logger, ctx: ctx, cancel: cancel}
}

// Connect implements driver.Connector. It returns when ctx is done, whatever the server does.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	c.mu.Lock()
	if c.ctx.Err() != nil {
		defer c.mu.Unlock()
		return nil, sql.ErrConnDone
	}
	if n := len(c.spare); n > 0 {
		defer c.mu.Unlock()
		conn := c.spare[n-1]
		c.spare = c.spare[:n-1]
		return conn, nil
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

// Close ends the logins that are under way and the spare sessions. sql.DB.Close calls it.
func (c *connector) Close() error {
	c.mu.Lock()
	c.cancel() // under the lock, so that no login starts while Wait looks
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

// finish hands a login to the caller that has waited for longest.
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

// giveUp takes a caller out of the queue. If it has just been given a session, that is kept.
func (c *connector) giveUp(answer chan login) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.callers, answer); i >= 0 {
		c.callers = slices.Delete(c.callers, i, i+1)
		return
	}
	c.keep((<-answer).conn)
}

// keep needs mu. conn is nil where the login failed.
func (c *connector) keep(conn driver.Conn) {
	switch {
	case conn == nil:
	case len(c.spare) < maxSpare && c.ctx.Err() == nil:
		c.spare = append(c.spare, conn)
	default:
		_ = conn.Close()
	}
}

// login makes a session, within connect_timeout.
func (c *connector) login() (driver.Conn, error) {
	if c.bare.Load() {
		return c.dial(withoutTimeouts(c.config))
	}
	conn, err := c.dial(c.config)
	if err == nil || !refusesSettings(err) {
		return conn, err
	}
	if !c.bare.Swap(true) {
		c.logger.Warn("a pooler refuses statement_timeout and lock_timeout as startup parameters; "+
			"going on without: set them on the role, or see PgBouncer's ignore_startup_parameters", "error", err)
	}
	return c.dial(withoutTimeouts(c.config))
}

func (c *connector) dial(config pq.Config) (driver.Conn, error) {
	dialer := &sessionDialer{limit: c.limit}
	inner, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, err
	}
	inner.Dialer(dialer)

	stop := context.AfterFunc(c.ctx, dialer.abort) // lib/pq looks at the context only until the TCP connection stands
	defer stop()
	conn, err := inner.Connect(c.ctx)
	if err != nil {
		return nil, err
	}
	return newSession(conn, dialer.establish(), c.begin)
}

// refusesSettings recognizes PgBouncer's answer to a startup parameter that it cannot pass on: FATAL 08P01, "unsupported
// startup parameter: statement_timeout".
func refusesSettings(err error) bool {
	e := pq.As(err, "08P01")
	return e != nil && strings.Contains(e.Message, "startup parameter") &&
		(strings.Contains(e.Message, settingStatementTimeout) || strings.Contains(e.Message, settingLockTimeout))
}
