package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// Sender enqueues tasks. *asynq.Client implements it.
type Sender interface {
	EnqueueContext(ctx context.Context, task *asynq.Task, opts ...asynq.Option) (*asynq.TaskInfo, error)
}

// NewSender returns a Sender to the queues of the installation with the given prefix. The caller closes the client.
//
//nolint:ireturn // without a prefix and a cluster it is Asynq's own client
func NewSender(client redis.UniversalClient, prefix string) Sender {
	inner := asynq.NewClientFromRedisClient(OnRedisTime(client))
	queues := QueuesIn(client, prefix)
	if queues == (Queues{flush: 1}) {
		return inner
	}
	return routed{inner, queues}
}

// routed is a Sender to the queues of a namespace or a cluster.
type routed struct {
	inner  Sender
	queues Queues
}

// EnqueueContext implements Sender.
func (r routed) EnqueueContext(ctx context.Context, task *asynq.Task, opts ...asynq.Option) (*asynq.TaskInfo, error) {
	own := asynq.Queue(r.queues.of(task)) // it overrides the task's queue
	return r.inner.EnqueueContext(ctx, task, slices.Insert(opts, 0, own)...)
}

// Send enqueues task, in one round trip to Redis. It succeeds if a task with the same ID, which does the same work, is already there.
func Send(ctx context.Context, to Sender, task *asynq.Task) error {
	_, err := TrySend(ctx, to, task)
	return err
}

// TrySend is Send, and reports whether a task with the same ID was already there. If that one is running, it may be past its work, and miss
// what this one was to do.
func TrySend(ctx context.Context, to Sender, task *asynq.Task) (conflict bool, err error) {
	_, err = to.EnqueueContext(ctx, task)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("enqueue %s: %w", task.Type(), err)
	}
	return false, nil
}
