package worker

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Delays of drains.
const (
	BusyDelay       = busyDelay
	LongestDeferral = longestDeferral
)

// Flusher returns the worker's Flusher. longest bounds each of its drains; 0: as usual.
func (w *Worker) Flusher(longest time.Duration) *Flusher {
	w.handlers.flusher.longest = longest
	return w.handlers.flusher
}

// StartTasks starts the task server without the rest of Run, which then fails.
func (w *Worker) StartTasks() (stop func(), err error) {
	return w.server.Shutdown, w.server.Start(w.handlers.mux())
}

// EvictIdle removes idle entries as a task does. passing is true if another pass is under way.
func (w *Worker) EvictIdle(ctx context.Context, passing bool) error {
	w.handlers.evictor.passing.Store(passing)
	return w.handlers.evictor.idle(ctx)
}

// SendNext sends the drains that the drain with the TaskID id requests. rerun is true if that drain has to run again itself.
func (w *Worker) SendNext(ctx context.Context, shard counter.Shard, id string, drained Drained) (rerun bool, err error) {
	err = w.handlers.sendNext(ctx, shard, id, drained)
	if isRerun(err) {
		return true, nil
	}
	return false, err
}
