package dashboard

import (
	"context"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/health"
)

// watch takes a sample each second, even without viewers, and keeps the last frame for all viewers.
type watch struct {
	monitor *health.Monitor

	mu      sync.Mutex
	current *frame
	next    chan struct{} // closed when there is a newer frame
}

// frame is the snapshot of one second, shared by all viewers. The snapshot is immutable.
type frame struct {
	health.Snapshot

	mu    sync.Mutex
	parts map[string][]byte // by page: the parts for live viewers, rendered for the first one
}

func newWatch(monitor *health.Monitor) *watch {
	return &watch{
		monitor: monitor, current: &frame{Snapshot: health.Snapshot{Starting: true}}, next: make(chan struct{}),
	}
}

// latest returns the last frame, and a channel that is closed when there is a newer one. It does not block. A slow viewer misses frames.
func (w *watch) latest() (*frame, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current, w.next
}

// first returns the last frame. If there is none yet, it waits up to a second for it.
func (w *watch) first(ctx context.Context) *frame {
	f, next := w.latest()
	if !f.Starting {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, health.SampleEvery)
	defer cancel()
	select {
	case <-next:
	case <-ctx.Done():
	}
	f, _ = w.latest()
	return f
}

// run takes samples until ctx is done.
func (w *watch) run(ctx context.Context) {
	ticker := time.NewTicker(health.SampleEvery)
	defer ticker.Stop()
	for {
		if s, ok := w.monitor.Next(ctx); ok {
			w.publish(&frame{Snapshot: s})
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (w *watch) publish(f *frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current = f
	close(w.next)
	w.next = make(chan struct{})
}
