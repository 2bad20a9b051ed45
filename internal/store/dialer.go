package store

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// connectTimeout bounds the whole of making a connection: name lookup, TCP, TLS, authentication.
	connectTimeout = 3 * time.Second
	// cancelTimeout bounds the second connection, over which lib/pq asks the server to cancel a query. Nobody waits for it.
	cancelTimeout = time.Second
)

// keepAlive finds a peer that has disappeared while a connection lies idle in the pool: after 15 + 3 * 5 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// sessionDialer makes the network connection of one session, and remembers it. What it dials once the session is
// established are the short connections for cancel requests.
type sessionDialer struct {
	limit time.Duration // see boundedConn

	mu          sync.Mutex
	conn        *boundedConn // the session's
	established bool
}

// DialContext implements pq.DialerContext.
func (d *sessionDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTimeout, KeepAliveConfig: keepAlive}
	raw, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.established {
		return &boundedConn{Conn: raw, limit: cancelTimeout}, nil
	}
	d.conn = &boundedConn{Conn: raw, limit: d.limit}
	return d.conn, nil
}

// Dial implements pq.Dialer, which lib/pq asks for but does not use where there is a DialContext.
func (d *sessionDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialTimeout is as Dial.
func (d *sessionDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// establish returns the session's connection; lib/pq has logged in on it.
func (d *sessionDialer) establish() *boundedConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.established = true
	return d.conn
}

// abort ends a login that is under way.
func (d *sessionDialer) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.abort()
	}
}
