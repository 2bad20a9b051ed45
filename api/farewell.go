package api

import (
	"context"
	"sync/atomic"
	"time"
)

// Farewell is the time between being told to stop and stopping: requests are answered as ever, but /readyz says 503 and
// every answer closes its connection, so that a load balancer has sent its requests elsewhere before the port closes. The
// zero value is ready to use.
type Farewell struct{ begun atomic.Bool }

// Context returns a context that ends delay after ctx has, and says so to the handler meanwhile. stop frees it.
func (f *Farewell) Context(ctx context.Context, delay time.Duration) (later context.Context, stop context.CancelFunc) {
	later, end := context.WithCancel(context.WithoutCancel(ctx))
	stopWatching := context.AfterFunc(ctx, func() {
		f.begun.Store(true)
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			end()
		case <-later.Done():
		}
	})
	return later, func() {
		stopWatching()
		end()
	}
}

// underWay reports whether the process has been told to stop; f may be nil.
func (f *Farewell) underWay() bool { return f != nil && f.begun.Load() }
