package store

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// watchedPipe returns a connection that is aborted when cancel is called before stop.
func watchedPipe(t *testing.T) (c *boundedConn, cancel, stop func()) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { _, _ = client.Close(), server.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	c = &boundedConn{Conn: client}
	return c, cancel, c.watch(ctx)
}

// A context that ends together with its statement must not abort the connection later, under the next caller's statement.
func TestAConnectionIsAbortedBeforeItsCallerGivesItBack(t *testing.T) {
	t.Parallel()
	c, cancel, stop := watchedPipe(t)
	stopped := make(chan struct{})

	c.mu.Lock() // the abort has to wait
	cancel()
	go func() {
		stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		c.mu.Unlock()
		t.Fatal("the connection can be used again, and its abort is still to come")
	case <-time.After(100 * time.Millisecond):
	}
	c.mu.Unlock()
	<-stopped
	require.False(t, c.usable())
}

func TestAConnectionStaysUsableAfterItsContextHasEnded(t *testing.T) {
	t.Parallel()
	c, cancel, stop := watchedPipe(t)
	stop()
	cancel()
	stop()
	require.True(t, c.usable())
}
