package cache

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A call whose connection was closed may be repeated only if no byte of its request was sent.
func TestOnlyAClosedConnectionWithoutARequestWasNotWrittenTo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before func(t *testing.T, c *watchedConn, server net.Conn)
		unsent bool
	}{
		"new": {unsent: true, before: func(t *testing.T, c *watchedConn, _ net.Conn) {
			t.Helper()
			require.NoError(t, c.Close())
		}},
		"after an answer": {unsent: true, before: func(t *testing.T, c *watchedConn, server net.Conn) {
			t.Helper()
			sendPart(t, c, server)
			answer(t, c, server)
			require.NoError(t, c.Close())
			require.Error(t, c.Close())
		}},
		"closed below": {unsent: true, before: func(t *testing.T, c *watchedConn, _ net.Conn) {
			t.Helper()
			require.NoError(t, c.Conn.Close())
		}},
		"after a part of the request": {before: func(t *testing.T, c *watchedConn, server net.Conn) {
			t.Helper()
			sendPart(t, c, server)
			require.NoError(t, c.Close())
			require.Error(t, c.Close())
		}},
		"closed below after a part of the request": {before: func(t *testing.T, c *watchedConn, server net.Conn) {
			t.Helper()
			sendPart(t, c, server)
			require.NoError(t, c.Conn.Close())
		}},
		"hung": {before: func(t *testing.T, c *watchedConn, server net.Conn) {
			t.Helper()
			sendPart(t, c, server)
			c.sent.Store(time.Now().Add(-hungAfter).UnixNano())
			require.False(t, c.of.closeHung(func(string) bool { return false }))
			require.Error(t, c.Close(), "it is closed")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, server := watchedPair(t)
			test.before(t, c, server)

			err := c.SetWriteDeadline(time.Now().Add(time.Minute))
			require.ErrorIs(t, err, net.ErrClosed)
			require.Equal(t, test.unsent, notSent(err), "%v", err)
			require.True(t, Away(err))
			n, err := c.Write([]byte("PING"))
			require.Zero(t, n)
			require.ErrorIs(t, err, net.ErrClosed)
			require.Equal(t, test.unsent, notSent(err), "%v", err)
			require.True(t, Away(err))
		})
	}
}

// A write may fail after a part of it has left.
func TestPartOfARequestWasSent(t *testing.T) {
	t.Parallel()
	c, server := watchedPair(t)
	var n int
	written := make(chan error)
	go func() {
		var err error
		n, err = c.Write(make([]byte, 64<<20)) // more than the buffers of the sockets
		written <- err
	}()
	_, err := io.ReadFull(server, make([]byte, 1))
	require.NoError(t, err)
	require.NoError(t, c.SetWriteDeadline(time.Now()))

	err = <-written
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NotZero(t, n)
	require.False(t, notSent(err))
	_, err = c.Write([]byte("PING"))
	require.Error(t, err)
	require.False(t, notSent(err), "it is the next part")
}

// Nothing leaves after the deadline.
func TestRequestAfterItsDeadlineWasNotSent(t *testing.T) {
	t.Parallel()
	c, _ := watchedPair(t)
	require.NoError(t, c.SetWriteDeadline(time.Now()))
	_, err := c.Write([]byte("PING"))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.True(t, notSent(err))
}

func sendPart(t *testing.T, c *watchedConn, server net.Conn) {
	t.Helper()
	require.NoError(t, c.SetWriteDeadline(time.Now().Add(time.Minute)))
	_, err := c.Write([]byte("PING"))
	require.NoError(t, err)
	_, err = io.ReadFull(server, make([]byte, 4))
	require.NoError(t, err)
}

func answer(t *testing.T, c *watchedConn, server net.Conn) {
	t.Helper()
	_, err := server.Write([]byte("PONG"))
	require.NoError(t, err)
	_, err = io.ReadFull(c, make([]byte, 4))
	require.NoError(t, err)
}

// watchedPair returns both ends of a connection.
func watchedPair(t *testing.T) (c *watchedConn, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	server, err = listener.Accept()
	require.NoError(t, err)
	c = (&watched{trouble: func() {}}).watch(conn, "").(*watchedConn)
	t.Cleanup(func() {
		_ = c.Close()
		_ = server.Close()
	})
	return c, server
}
