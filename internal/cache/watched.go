package cache

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// hungAfter is how long a request may be without any byte of an answer before its server is suspected to hang. No script takes as long.
const hungAfter = 300 * time.Millisecond

// watched are the connections of a client. They notice a server that hangs, long before the time-out of a call.
type watched struct {
	trouble func() // called when a connection fails or hangs; must not block

	mu    sync.Mutex
	conns map[*watchedConn]struct{}
}

// dialHook watches the connections that next makes.
func (w *watched) dialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				w.trouble()
			}
			if !notSent(err) { // of the handshake of TLS, or of a Sentinel that was asked for the master
				err = unsentError{err}
			}
			return nil, err
		}
		if i, ok := conn.(impatient); ok { // it leads to the master that a Sentinel has named
			conn, addr = i.Conn, i.addr
		}
		return w.watch(conn, addr), nil
	}
}

// watch returns a connection that is watched.
func (w *watched) watch(conn net.Conn, addr string) net.Conn {
	c := &watchedConn{Conn: conn, of: w, addr: addr}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns == nil {
		w.conns = make(map[*watchedConn]struct{})
	}
	w.conns[c] = struct{}{}
	return c
}

// closeHung closes hung connections, except those to servers that are used: their calls end at their time-outs. It reports whether it kept
// any. A connection whose state has changed meanwhile stays open: it may carry another call now.
func (w *watched) closeHung(used func(addr string) bool) (left bool) {
	now := time.Now().UnixNano()
	w.mu.Lock()
	var closing []*watchedConn
	for c := range w.conns {
		sent := c.sent.Load()
		if sent <= 0 || now-sent < int64(hungAfter) {
			continue
		}
		if used(c.addr) {
			left = true
			continue
		}
		c.retired.Store(true) // first: its call may be answered before it is closed, and the next call must not get it
		if c.sent.CompareAndSwap(sent, closed) {
			closing = append(closing, c)
		}
	}
	w.mu.Unlock()
	for _, c := range closing {
		// step: hung
		_ = c.Conn.Close() // its call ends with an error
	}
	return left
}

// retire makes the pool close each connection at its next use, except those to servers that are used. It closes none itself: a connection
// that seems idle may just have been handed out, and its call would fail although nothing is wrong with it.
func (w *watched) retire(used func(addr string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		if !used(c.addr) {
			c.retired.Store(true) // step: retired
		}
	}
}

// These are watchedConn.sent of a closed connection.
const (
	closed     = -1 // a request had no answer yet
	closedIdle = -2 // none had been sent since the last answer
)

// watchedConn is a connection that notices when an answer is missing.
type watchedConn struct {
	net.Conn

	of      *watched
	addr    string
	sent    atomic.Int64 // when the first request was written that has no answer yet, in ns; 0: none; or closed or closedIdle
	armed   atomic.Bool  // check will be called
	retired atomic.Bool
}

// Write implements net.Conn. Its error is an unsentError if no byte of the request was sent. go-redis writes a long request in parts, and
// reads nothing before the last.
func (c *watchedConn) Write(b []byte) (int, error) {
	first := c.sent.CompareAndSwap(0, time.Now().UnixNano())
	if first && c.armed.CompareAndSwap(false, true) {
		time.AfterFunc(hungAfter, c.check)
	}
	if !first {
		switch c.sent.Load() {
		case closedIdle:
			return 0, unsentError{net.ErrClosed}
		case closed:
			return 0, net.ErrClosed
		}
	}
	n, err := c.Conn.Write(b)
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.of.trouble()
	}
	if err != nil && first && n == 0 {
		err = unsentError{err}
	}
	return n, err
}

// SetWriteDeadline implements net.Conn. go-redis calls it before each request, so this is where it notices that the connection was closed
// after the pool had handed it out: after a failover that a Sentinel announces, go-redis closes connections that are in use.
func (c *watchedConn) SetWriteDeadline(t time.Time) error {
	err := c.Conn.SetWriteDeadline(t)
	if sent := c.sent.Load(); err != nil && (sent == 0 || sent == closedIdle) {
		return unsentError{err}
	}
	return err //nolint:wrapcheck // it is the connection's
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	sent := c.sent.Load()
	if n > 0 && sent > 0 {
		c.sent.CompareAndSwap(sent, 0)
	}
	// Subscriptions read without a request, until their deadline.
	if err != nil && sent > 0 && n == 0 && !errors.Is(err, net.ErrClosed) {
		c.of.trouble()
	}
	return n, err
}

// check calls trouble if the answer to a request is overdue. While requests are sent it runs once in hungAfter.
func (c *watchedConn) check() {
	c.armed.Store(false)
	sent := c.sent.Load()
	if sent <= 0 {
		return
	}
	left := hungAfter - time.Duration(time.Now().UnixNano()-sent)
	if left <= 0 {
		c.of.trouble()
		return
	}
	if c.armed.CompareAndSwap(false, true) {
		time.AfterFunc(left, c.check)
	}
}

func (c *watchedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	for {
		sent, now := c.sent.Load(), int64(closed)
		if sent == 0 {
			now = closedIdle
		}
		if sent < 0 || c.sent.CompareAndSwap(sent, now) {
			return c.Conn.Close()
		}
	}
}

// SyscallConn implements syscall.Conn. go-redis's pool calls it before each use of a connection, and closes the connection if it fails.
func (c *watchedConn) SyscallConn() (syscall.RawConn, error) {
	if c.retired.Load() {
		return nil, net.ErrClosed
	}
	if plain, ok := c.Conn.(syscall.Conn); ok {
		return plain.SyscallConn()
	}
	if secure, ok := c.Conn.(*tls.Conn); ok && !quiet(secure.NetConn()) {
		return nil, net.ErrClosed
	}
	return silent{}, nil
}

// silent is the socket of a connection with TLS, on which nothing seems to arrive. go-redis must not see bytes of the TLS layer: it would
// wait without a deadline for the push message that it expects in them.
type silent struct{}

func (silent) Control(func(fd uintptr)) error    { return nil }
func (silent) Read(func(fd uintptr) bool) error  { return nil }
func (silent) Write(func(fd uintptr) bool) error { return nil }
