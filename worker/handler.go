package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/trace"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// purgeBatch is the number of tombstones that one statement removes or keeps.
	purgeBatch = 1000
	// maxPurgeBatches bounds one purge. The next removes the rest.
	maxPurgeBatches = 1000
)

// handlers run the tasks.
type handlers struct {
	cache         *cache.Cache
	store         Store
	flusher       *Flusher
	retries       *retries
	evictor       *evictor
	sender        tasks.Sender
	inspector     *asynq.Inspector
	queues        tasks.Queues
	logger        *slog.Logger
	flushInterval time.Duration
	tombstoneTTL  time.Duration
	history       bool          // some counters have one
	retention     time.Duration // of histories
	sweepsStale   atomic.Bool   // the last sweep was too late to run
	metrics       *metrics
	tracing       trace.TracerProvider // nil: no tracing
}

func (h *handlers) mux() *asynq.ServeMux {
	mux := asynq.NewServeMux()
	if h.tracing != nil {
		mux.Use(traced(h.tracing))
	}
	mux.HandleFunc(tasks.TypeFlush, h.flush)
	mux.HandleFunc(tasks.TypeDrain, h.drain)
	mux.HandleFunc(tasks.TypeRetry, h.retry)
	mux.HandleFunc(tasks.TypeSweep, h.sweep)
	mux.HandleFunc(tasks.TypePurge, h.purge)
	mux.HandleFunc(tasks.TypeEvict, h.evict)
	return mux
}

// flush handles an aggregate of flush tasks: it drains their shard. A group has one shard, but tasks enqueued by hand may mix shards.
func (h *handlers) flush(ctx context.Context, task *asynq.Task) error {
	keys, err := tasks.DecodeKeys(task.Payload())
	if err != nil {
		return h.unreadable(task, err)
	}
	byShard := make(map[counter.Shard]struct{}, 1)
	for _, key := range keys {
		byShard[h.cache.Shard(key)] = struct{}{}
	}
	for shard := range byShard {
		if err := h.drainShard(ctx, tasks.Shard{Shard: shard}); err != nil {
			if err = h.coalesce(ctx, shard, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// outage returns store.ErrUnavailable while the breaker is open, so that a task fails before it reads entries that it cannot write.
func (h *handlers) outage() error {
	if h.store.Available() {
		return nil
	}
	return store.ErrUnavailable
}

// coalesce replaces a flush that failed during an outage by one delayed drain of the shard. In an outage a flush of each shard fails every
// second: thousands of retries would delay the drains once Postgres is back.
func (h *handlers) coalesce(ctx context.Context, shard counter.Shard, failure error) error {
	if h.store.Available() || isRerun(failure) {
		return failure
	}
	if err := tasks.Send(ctx, h.sender, tasks.Drain(shard, outageDelay)); err != nil {
		return errors.Join(failure, err)
	}
	h.logger.DebugContext(ctx, "a flush failed; a drain of its shard will replace it", "shard", shard, "error", failure)
	return nil
}

// drain handles a drain task.
func (h *handlers) drain(ctx context.Context, task *asynq.Task) error {
	payload, err := tasks.DecodeShard(task.Payload(), h.cache.Shards())
	if err != nil {
		return h.unreadable(task, err)
	}
	err = h.drainShard(ctx, payload)
	if err != nil && payload.Swept && !isRerun(err) {
		h.logger.Debug("a swept drain failed; the next sweep sends another", "shard", payload.Shard, "error", err)
		return nil
	}
	return err
}

// drainShard drains a shard, and sends the next drain if there is more to do: keys that were written meanwhile may have no task, because
// the ID of their task was taken. If no drain can be sent, it returns a *rerunError.
func (h *handlers) drainShard(ctx context.Context, shard tasks.Shard) error {
	if err := h.outage(); err != nil {
		return err
	}
	id, _ := asynq.GetTaskID(ctx)
	minAge := h.flusher.batching.pause() / 2
	if shard.Now || shard.Swept {
		minAge = 0
	}
	drained, err := h.flusher.Drain(ctx, shard.Shard, id, minAge)
	if err != nil {
		return err
	}
	return h.sendNext(ctx, shard.Shard, id, drained)
}

// sendNext sends the drains that a drain requests. id is the TaskID of the sender. If no other task will do the work, it returns a
// *rerunError.
func (h *handlers) sendNext(ctx context.Context, shard counter.Shard, id string, drained Drained) error {
	var failed error
	var own time.Duration // wait before the sender runs again; 0: no need
	for _, next := range []struct {
		after time.Duration
		ids   []string
		task  func(shard counter.Shard, id string, delay time.Duration) *asynq.Task
	}{
		{drained.Deferred, tasks.DueIDs(shard, id), tasks.DrainDue},
		{drained.Again, tasks.MoreIDs(shard, id), tasks.DrainMore},
	} {
		passed, err := next.after == 0, error(nil)
		for i := 0; i < len(next.ids) && !passed && err == nil; i++ {
			passed, err = h.pass(ctx, shard, next.ids[i], next.task(shard, next.ids[i], next.after))
		}
		if failed = errors.Join(failed, err); !passed {
			own = sooner(own, next.after)
		}
	}
	if failed == nil && own > 0 {
		return &rerunError{own}
	}
	return failed
}

// pass sends a drain, and reports whether a task with its ID will run. A task that holds the ID, but is already running, does not count:
// it may be past its work, and miss keys that were written since.
func (h *handlers) pass(ctx context.Context, shard counter.Shard, id string, task *asynq.Task) (bool, error) {
	conflict, err := tasks.TrySend(ctx, h.sender, task)
	if err != nil || !conflict {
		return err == nil, err
	}
	holder, err := h.inspector.GetTaskInfo(h.queues.Flush(shard), id)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound):
		return false, nil // it has just ended
	case err != nil:
		return false, fmt.Errorf("read task %q: %w", id, err)
	}
	return slices.Contains([]asynq.TaskState{asynq.TaskStatePending, asynq.TaskStateScheduled, asynq.TaskStateRetry}, holder.State), nil
}

// rerunError is the result of a drain that has to run again, under its own ID, because running drains hold the IDs of the next one. It is
// no failure. Asynq keeps the ID meanwhile, so no hint is lost in between.
type rerunError struct{ after time.Duration }

func (e *rerunError) Error() string {
	return "not a failure: there is more to flush, so this drain runs again in " + e.after.String()
}

func isRerun(err error) bool {
	_, ok := errors.AsType[*rerunError](err)
	return ok
}

func (h *handlers) retry(ctx context.Context, task *asynq.Task) error {
	keys, err := tasks.DecodeKeys(task.Payload())
	if err != nil || len(keys) != 1 {
		return h.unreadable(task, err)
	}
	if err := h.outage(); err != nil {
		return err
	}
	retried, _ := asynq.GetRetryCount(ctx)
	return h.retries.attempt(ctx, h.flusher, keys[0], retried+1)
}

// sweep sends a drain for each shard that has been dirty for too long, whatever its tasks. It does nothing while Postgres is away, and if
// it is late: after an hour without a worker there are hundreds of sweeps, and each would send its drains.
func (h *handlers) sweep(ctx context.Context, task *asynq.Task) error {
	tick, err := tasks.DecodeTick(task.Payload())
	if err != nil {
		return h.unreadable(task, err)
	}
	now, err := h.cache.Now(ctx)
	if err != nil {
		return err
	}
	stale := tick.Stale(time.UnixMilli(now))
	if was := h.sweepsStale.Swap(stale); stale {
		if !was {
			h.logger.Info("skipping sweeps that are more than two intervals late: no worker ran")
		}
		return nil
	}
	if err := h.checkMeta(ctx); err != nil {
		return err
	}
	h.metrics.lastSweep.SetToCurrentTime()
	if !h.store.Available() {
		return nil
	}
	overdue, err := h.cache.Overdue(ctx, 2*h.flushInterval)
	if err != nil {
		return err
	}
	var failed error
	for _, shard := range overdue {
		h.logger.Debug("sweep found overdue keys", "shard", shard)
		if err := tasks.Send(ctx, h.sender, tasks.SweptDrain(shard, tick.Bucket)); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// checkMeta checks the settings in Redis. In a Redis that was emptied it notes them again, and logs that.
func (h *handlers) checkMeta(ctx context.Context) error {
	emptied, err := h.cache.Emptied(ctx)
	if err != nil {
		return err
	}
	if emptied {
		h.metrics.emptied.Inc()
		h.logger.Error("redis was emptied, or restarted without its data: writes that postgres did not have are lost; " +
			"counters continue from postgres")
	}
	return nil
}

// purge removes old operations, and old tombstones in batches.
func (h *handlers) purge(ctx context.Context, _ *asynq.Task) error {
	return errors.Join(h.purgeHistory(ctx), h.purgeTombstones(ctx))
}

func (h *handlers) purgeTombstones(ctx context.Context) error {
	for range maxPurgeBatches {
		_, more, err := h.store.Purge(ctx, h.tombstoneTTL, purgeBatch)
		if err != nil {
			return fmt.Errorf("purge: %w", err)
		}
		if !more {
			return nil
		}
	}
	return nil
}

// evict removes clean entries that are idle.
func (h *handlers) evict(ctx context.Context, _ *asynq.Task) error { return h.evictor.idle(ctx) }

// unreadable drops a task whose payload cannot be read: no retry would help, and nothing depends on the task.
func (h *handlers) unreadable(task *asynq.Task, err error) error {
	h.logger.Error("dropped a task that cannot be read", "type", task.Type(), "error", err)
	return nil
}
