package store

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// connectTimeout bounds a login: name lookup, TCP, TLS and authentication.
	connectTimeout = 3 * time.Second
	// cancelTimeout bounds the second connection, on which lib/pq sends a cancel request. No call waits for it.
	cancelTimeout = time.Second
)

// keepAlive detects a dead peer of an idle connection after 15 + 3 * 5 s.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// sessionDialer dials the network connection of one session. Later connections, once the session is established, are for cancel
// requests.
type sessionDialer struct {
	limit time.Duration // of one Read or Write until the session is established

	mu          sync.Mutex
	conn        *boundedConn // the session's
	address     string       // of conn
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
	d.conn, d.address = &boundedConn{Conn: raw, limit: d.limit}, address
	return d.conn, nil
}

// Dial implements pq.Dialer. lib/pq requires it, but calls DialContext.
func (d *sessionDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialTimeout implements pq.Dialer, like Dial.
func (d *sessionDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// establish marks the session as established, once lib/pq has logged in, and returns its connection and address. From now on limit bounds
// each Read or Write.
func (d *sessionDialer) establish(limit time.Duration) (*boundedConn, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.established = true
	d.conn.bound(limit)
	return d.conn, d.address
}

// abort ends a login in progress.
func (d *sessionDialer) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		d.conn.abort()
	}
}
