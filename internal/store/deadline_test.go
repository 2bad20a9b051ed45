package store

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A context that ends together with its statement must not abort the connection later, under the next caller's statement.
func TestAConnectionIsAbortedBeforeItsCallerGivesItBack(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	defer client.Close()
	c := &boundedConn{Conn: client}
	ctx, cancel := context.WithCancel(t.Context())
	stop := c.watch(ctx)
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
	client, server := net.Pipe()
	defer server.Close()
	defer client.Close()
	c := &boundedConn{Conn: client}
	ctx, cancel := context.WithCancel(t.Context())
	stop := c.watch(ctx)
	stop()
	cancel()
	stop()
	require.True(t, c.usable())
}
