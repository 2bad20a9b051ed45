package tasks

import (
	"context"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"
)

// Sender is the part of *asynq.Client that enqueues.
type Sender interface {
	EnqueueContext(ctx context.Context, task *asynq.Task, opts ...asynq.Option) (*asynq.TaskInfo, error)
}

// Send enqueues task, in one round trip to Redis. A task of the same ID that is already there is success: it will do
// the same.
func Send(ctx context.Context, to Sender, task *asynq.Task) error {
	_, err := send(ctx, to, task)
	return err
}

// send is Send, and reports whether a task of the same ID was already there.
func send(ctx context.Context, to Sender, task *asynq.Task) (conflict bool, err error) {
	_, err = to.EnqueueContext(ctx, task)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("enqueue %s: %w", task.Type(), err)
	}
	return false, nil
}
