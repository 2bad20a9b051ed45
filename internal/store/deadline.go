package store

import (
	"context"
	"net"
	"sync"
	"time"
)

// boundedConn is a network connection on which no call blocks forever. A Read or Write ends after limit, at the connection's
// deadline, or when the context of watch is done, whichever is first.
//
// lib/pq needs this: when a context is done, it sends a cancel request over a second connection, but keeps reading from the first.
// A server that is frozen or cut off never answers.
type boundedConn struct {
	net.Conn

	mu         sync.Mutex
	limit      time.Duration // of one Read or Write; 0: none
	readUntil  time.Time     // zero: none
	writeUntil time.Time     // zero: none
	aborted    bool
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// Read reads with the earlier of the two deadlines.
func (c *boundedConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetReadDeadline(c.deadline(c.readUntil))
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write writes with the earlier of the two deadlines.
func (c *boundedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetWriteDeadline(c.deadline(c.writeUntil))
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// deadline returns the deadline of the next Read or Write. The caller holds mu until it has set the deadline; otherwise it could undo
// an abort.
func (c *boundedConn) deadline(until time.Time) time.Time {
	if c.aborted {
		return longAgo
	}
	if c.limit <= 0 {
		return until
	}
	limit := time.Now().Add(c.limit)
	if until.IsZero() || limit.Before(until) {
		return limit
	}
	return until
}

// bound sets the limit of each following Read or Write.
func (c *boundedConn) bound(limit time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
}

// SetDeadline bounds all following reads and writes; lib/pq calls it for connect_timeout.
func (c *boundedConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readUntil, c.writeUntil = t, t
	return nil
}

// SetReadDeadline bounds all following reads.
func (c *boundedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readUntil = t
	return nil
}

// SetWriteDeadline bounds all following writes; crypto/tls calls it when it closes.
func (c *boundedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeUntil = t
	return nil
}

// abort ends the Read and Write in progress, and makes all later ones fail.
func (c *boundedConn) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted = true
	_ = c.Conn.SetDeadline(longAgo) // fails only on a closed connection, which needs no abort
}

// usable reports whether the connection was not aborted.
func (c *boundedConn) usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.aborted
}

// watch aborts the connection when ctx is done, until stop is called. If ctx was done before stop, the connection is aborted when stop
// returns. Otherwise the abort could come later, when the connection has the statement of another caller.
func (c *boundedConn) watch(ctx context.Context) (stop func()) {
	end := context.AfterFunc(ctx, c.abort)
	return sync.OnceFunc(func() { // end returns false for the second time, too
		if !end() {
			c.abort()
		}
	})
}
