package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

// maxBackoff bounds the wait between two attempts at a row that Postgres refuses.
const maxBackoff = 10 * time.Minute

// retries gives refused rows a task of their own.
type retries struct {
	cache         *cache.Cache
	sender        tasks.Sender
	inspector     *asynq.Inspector
	metrics       *metrics
	logger        *slog.Logger
	maxAttempts   int
	backoff       time.Duration
	sweepInterval time.Duration
	pace          pace
}

// Refused puts the row's key aside and sends its retry. The order matters: if the process dies in between, the key is
// found by a sweep when its time has come.
func (r *retries) Refused(ctx context.Context, row counter.Row, reason error) error {
	r.metrics.refused.Inc()
	r.logger.WarnContext(ctx, "postgres refused a row; it will be tried again on its own", "key", row.Key, "value", row.Value,
		"version", row.Version, "reason", reason)
	if err := r.park(ctx, row.Key, 0); err != nil {
		return err
	}
	return r.send(ctx, row.Key)
}

// park puts key aside until its next attempt and somewhat longer, so that sweeps leave it to its retry, but take it up
// if that was lost.
func (r *retries) park(ctx context.Context, key counter.Key, attempts int) error {
	return r.cache.Park(ctx, key, r.delay(attempts)+2*r.sweepInterval)
}

// parkUntil is park until a retry that has been sent.
func (r *retries) parkUntil(ctx context.Context, key counter.Key, at time.Time) error {
	wait := min(time.Until(at), maxBackoff)
	if wait <= r.delay(0) {
		return nil // it is parked for as long
	}
	return r.cache.Park(ctx, key, wait+2*r.sweepInterval)
}

// delay is the wait after so many attempts.
func (r *retries) delay(attempts int) time.Duration {
	d := r.backoff
	for range attempts {
		if d = 2 * d; d >= maxBackoff {
			return maxBackoff
		}
	}
	return d
}

// send enqueues key's retry. An archived one of an earlier time would hold the ID for ever: it makes way.
func (r *retries) send(ctx context.Context, key counter.Key) error {
	task := tasks.Retry(key, r.maxAttempts, r.delay(0))
	_, err := r.sender.EnqueueContext(ctx, task)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		info, infoErr := r.inspector.GetTaskInfo(tasks.QueueRetry, tasks.RetryID(key))
		switch {
		case infoErr != nil:
			return nil //nolint:nilerr // a retry was there a moment ago
		case info.State != asynq.TaskStateArchived: // somebody had it tried before its retry, which goes on waiting
			return r.parkUntil(ctx, key, info.NextProcessAt)
		}
		if err := r.inspector.DeleteTask(tasks.QueueRetry, tasks.RetryID(key)); err != nil {
			return fmt.Errorf("remove the archived retry of %q: %w", key, err)
		}
		_, err = r.sender.EnqueueContext(ctx, task)
	}
	if err != nil {
		return fmt.Errorf("enqueue the retry of %q: %w", key, err)
	}
	return nil
}

// refusedError is the error of a retry whose row was refused again: the only one that counts as a failure.
type refusedError struct{ reason error }

func (e *refusedError) Error() string { return "postgres refused the row: " + e.reason.Error() }
func (e *refusedError) Unwrap() error { return e.reason }

// verdict catches the refusal of a row that is flushed on its own.
type verdict struct{ reason error }

func (v *verdict) Refused(_ context.Context, _ counter.Row, reason error) error {
	v.reason = reason
	return nil
}

// attempt tries a refused row again: the attempt-th time. After the last one it becomes a dead letter, first in the
// shard's dead hash, which is never trimmed, then, by the error it returns, in Asynq's archive.
func (r *retries) attempt(ctx context.Context, f *Flusher, key counter.Key, attempt int) error {
	var v verdict
	own := *f
	own.refusals = &v
	if err := own.flushKeys(ctx, f.cache.Shard(key), []counter.Key{key}, true); err != nil {
		return err
	}
	if v.reason == nil {
		return nil
	}
	r.metrics.refused.Inc()
	refused := &refusedError{reason: v.reason}
	if attempt < r.maxAttempts {
		if err := r.park(ctx, key, attempt); err != nil {
			return err
		}
		return refused
	}
	dead := cache.Dead{Reason: v.reason.Error(), Since: time.Now().UTC(), Attempts: attempt}
	if err := r.cache.Bury(ctx, key, dead); err != nil {
		return err
	}
	r.metrics.buried.Inc()
	r.logger.ErrorContext(ctx, "a counter became a dead letter: it takes writes, but postgres does not get them", "key", key,
		"attempts", attempt, "reason", v.reason)
	return fmt.Errorf("%w: %w", refused, asynq.SkipRetry)
}
