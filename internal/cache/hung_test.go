package cache

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// slowClose is a connection. Its Close sends to closing, and then waits for let.
type slowClose struct {
	net.Conn

	closing chan struct{}
	let     chan struct{}
}

func (*slowClose) Write(b []byte) (int, error) { return len(b), nil }

func (c *slowClose) Close() error {
	c.closing <- struct{}{}
	<-c.let
	return nil
}

// A server that hung may answer just before its connection is closed. Then the pool has the connection back, and its next call would
// fail, although nothing was sent.
func TestHungConnectionIsNotUsedAgainBeforeItIsClosed(t *testing.T) {
	t.Parallel()
	plain := &slowClose{closing: make(chan struct{}), let: make(chan struct{})}
	w := watched{trouble: func() {}}
	conn := w.watch(plain, "former:6379").(*watchedConn)
	_, err := conn.Write([]byte("PING\r\n"))
	require.NoError(t, err)
	conn.sent.Store(time.Now().Add(-time.Second).UnixNano())

	done := make(chan bool)
	go func() { done <- w.closeHung(func(string) bool { return false }) }()
	<-plain.closing
	_, err = conn.SyscallConn()
	require.ErrorIs(t, err, net.ErrClosed)
	close(plain.let)
	require.False(t, <-done)
}
