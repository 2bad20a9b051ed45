package e2e_test

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/proof/world"
)

// balancer is a minimal load balancer. It forwards connections in turn to the processes that passed the last health check, and never
// retries a request.
type balancer struct {
	net.Listener

	ready [2]atomic.Bool
	next  atomic.Uint64
}

const healthCheckInterval = 50 * time.Millisecond

func balance(ctx context.Context, t *testing.T, backends [2]*world.Process) *balancer {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	b := &balancer{Listener: listener}
	for i, p := range backends {
		b.ready[i].Store(true)
		go b.check(ctx, i, local.Answers(p.URL+"/readyz"))
	}
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			go b.pass(ctx, in, backends)
		}
	}()
	return b
}

func (b *balancer) check(ctx context.Context, i int, answers func(context.Context) error) {
	ticker := time.NewTicker(healthCheckInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			b.ready[i].Store(answers(ctx) == nil)
		}
	}
}

func (b *balancer) pass(ctx context.Context, in net.Conn, backends [2]*world.Process) {
	defer func() { _ = in.Close() }()
	i := b.next.Add(1) % 2
	if !b.ready[i].Load() {
		i = 1 - i
	}
	out, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(backends[i].URL, "http://"))
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }()
	go func() {
		_, _ = io.Copy(out, in)
		_ = out.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(in, out)
}

// All processes are restarted one after the other, as in a deployment, while a load balancer sends writes to two api processes.
func TestNoRequestFailsInARollingRestart(t *testing.T) {
	t.Parallel()
	s := start(t, "AFTERWRITE_SHUTDOWN_DELAY=500ms")
	apis := [2]*world.Process{s.api, s.run(t, "api")}
	c := s.client()
	defer c.close()
	b := balance(t.Context(), t, apis)
	c.base = "http://" + b.Addr().String()
	restartAPIs := func() {
		for i, p := range apis {
			restart(t, p)
			localtest.Eventually(t, 5*time.Second, func() (bool, string) {
				return b.ready[i].Load(), "the balancer does not consider the api ready"
			})
		}
	}
	stop, done := make(chan struct{}), make(chan *ledger, 1)
	go func() { done <- c.load(16, 500, forever, stop) }()

	restartAPIs()
	for _, p := range s.workers {
		restart(t, p)
	}
	restart(t, s.scheduler)
	restartAPIs()

	close(stop)
	l := <-done
	t.Logf("7 restarts: %s", l)
	require.Empty(t, l.refused)
	require.Empty(t, l.indeterminate)
	s.eventuallyClean(t, 4*sweepInterval)
	s.requireExact(t, c, l)
	require.Zero(t, s.archived(t))
}

// restart stops p, requires that it stops within 10 s, and starts it again.
func restart(t *testing.T, p *world.Process) {
	t.Helper()
	began := time.Now()
	require.NoError(t, p.Stop())
	require.Less(t, time.Since(began), 10*time.Second, "%s took too long to stop", p.Name)
	startAgain(t, p)
}
