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

// retries gives each refused row a task of its own.
type retries struct {
	cache         *cache.Cache
	sender        tasks.Sender
	queue         string // of the retries, with the prefix
	inspector     *asynq.Inspector
	metrics       *metrics
	logger        *slog.Logger
	maxAttempts   int
	backoff       time.Duration
	sweepInterval time.Duration
	outage        outageBackoff
}

// refused sets the row's key aside and sends its retry, in this order: if the process dies in between, a sweep finds the key when it is
// due. The same happens if the retry cannot be sent, for example because Redis is full. unsent is that error; it does not prevent the
// commit of the epoch.
func (r *retries) refused(ctx context.Context, refused refusal) (unsent, err error) {
	row := refused.row
	r.metrics.refuse(refused.reason)
	r.logger.WarnContext(ctx, "postgres refused a row; it will be retried on its own", "key", row.Key, "value", row.Value,
		"version", row.Version, "reason", refused.reason)
	if err := r.setAside(ctx, row.Key, r.delay(0)); err != nil { // step: set aside
		return nil, err
	}
	return r.send(ctx, row.Key), nil
}

// setAside sets key aside until its next attempt and somewhat longer, so that flushes leave it to its retry, but take it if the retry was
// lost.
func (r *retries) setAside(ctx context.Context, key counter.Key, wait time.Duration) error {
	return r.cache.SetAside(ctx, r.cache.Shard(key), []counter.Key{key}, wait+2*r.sweepInterval)
}

// setAsideUntil is setAside until the time of a retry that has been sent before.
func (r *retries) setAsideUntil(ctx context.Context, key counter.Key, at time.Time) error {
	wait := min(time.Until(at), maxBackoff)
	if wait <= r.delay(0) {
		return nil // it is set aside for longer already
	}
	return r.setAside(ctx, key, wait)
}

// delay returns the wait after this number of attempts.
func (r *retries) delay(attempts int) time.Duration {
	d := r.backoff
	for range attempts {
		if d = 2 * d; d >= maxBackoff {
			return maxBackoff
		}
	}
	return d
}

// send enqueues key's retry. It deletes an earlier retry that has been archived, which would hold the task ID for ever.
func (r *retries) send(ctx context.Context, key counter.Key) error {
	task := tasks.Retry(key, r.maxAttempts, r.delay(0))
	_, err := r.sender.EnqueueContext(ctx, task)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		info, infoErr := r.inspector.GetTaskInfo(r.queue, tasks.RetryID(key))
		switch {
		case infoErr != nil:
			return nil //nolint:nilerr // the retry has just ended
		case info.State != asynq.TaskStateArchived: // the row was tried before its retry, which still waits
			return r.setAsideUntil(ctx, key, info.NextProcessAt)
		}
		if err := r.inspector.DeleteTask(r.queue, tasks.RetryID(key)); err != nil {
			return fmt.Errorf("remove the archived retry of %q: %w", key, err)
		}
		_, err = r.sender.EnqueueContext(ctx, task)
	}
	if err != nil {
		return fmt.Errorf("enqueue the retry of %q: %w", key, err)
	}
	return nil
}

// refusedError is the error of a retry whose row was refused again: the only error that counts as a failure.
type refusedError struct{ reason error }

func (e *refusedError) Error() string { return "postgres refused the row: " + e.reason.Error() }
func (e *refusedError) Unwrap() error { return e.reason }

// maxAttemptRounds bounds how often one attempt reads the entry again because it was reconciled or written meanwhile.
const maxAttemptRounds = 3

// attempt retries a refused row for the attempt-th time. After the last attempt the row becomes a dead letter: first in the shard's dead
// hash, which is never trimmed, and then, because of the returned error, in Asynq's archive.
func (r *retries) attempt(ctx context.Context, f *Flusher, key counter.Key, attempt int) error {
	for range maxAttemptRounds {
		over, reason, err := r.try(ctx, f, key)
		switch {
		case err != nil:
			return err
		case reason != nil:
			return r.refusedAgain(ctx, key, attempt, reason)
		case over:
			return nil
		}
	}
	return errUnsettled
}

// try flushes a set-aside entry on its own. over reports whether the attempt is over; reason is Postgres's refusal, if any.
func (r *retries) try(ctx context.Context, f *Flusher, key counter.Key) (over bool, reason, err error) {
	shard := r.cache.Shard(key)
	snapshot, err := r.cache.Read(ctx, shard, []counter.Key{key})
	if err != nil {
		return false, nil, err
	}
	e := snapshot.Entries[0]
	if e.Missing {
		return true, nil, r.cache.Settle(ctx, shard, snapshot.Entries)
	}
	if !e.Aside && !e.Corrupt {
		return true, nil, nil // a flush has taken it, or will
	}
	done, err := f.flush(ctx, snapshot, true, 1, context.Cause) // only the task's time bounds it
	switch {
	case err != nil:
		return false, nil, err
	case len(done.refused) > 0:
		return true, done.refused[0].reason, nil
	case done.deferred > 0: // a flush takes it when it is due
		return true, nil, tasks.Send(ctx, r.sender, tasks.DrainDue(shard, tasks.DueIDs(shard, "")[0], done.deferred))
	case len(done.committed) == 0:
		return false, nil, nil // it was reconciled and is still set aside
	}
	return true, nil, r.cache.Settle(ctx, shard, done.committed)
}

// refusedAgain sets the key aside for longer, or makes it a dead letter.
func (r *retries) refusedAgain(ctx context.Context, key counter.Key, attempt int, reason error) error {
	r.metrics.refuse(reason)
	refused := &refusedError{reason: reason}
	if attempt < r.maxAttempts {
		if err := r.setAside(ctx, key, r.delay(attempt)); err != nil {
			return err
		}
		return refused
	}
	dead := cache.Dead{Reason: reason.Error(), Since: time.Now().UTC(), Attempts: attempt}
	if err := r.cache.Bury(ctx, key, dead); err != nil {
		return err
	}
	r.metrics.buried.Inc()
	r.logger.ErrorContext(ctx, "a counter became a dead letter: it still takes writes, but they are not written to postgres", "key", key,
		"attempts", attempt, "reason", reason)
	return fmt.Errorf("%w: %w", refused, asynq.SkipRetry)
}
