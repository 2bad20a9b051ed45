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
	_, err := to.EnqueueContext(ctx, task)
	if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
		return fmt.Errorf("enqueue %s: %w", task.Type(), err)
	}
	return nil
}
