package deadletter

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

// Shown is everything about a dead letter.
type Shown struct {
	Letter

	Retry *LastRetry `json:"retry"` // nil: Asynq has none any more
}

// LastRetry is the last retry of a dead letter, as Asynq keeps it.
type LastRetry struct {
	ID        string `json:"id"`
	Queue     string `json:"queue"`
	State     string `json:"state"`
	Retried   int    `json:"retried"`
	LastError string `json:"last_error"`
}

// Show is Get with the last retry. It blocks for four bounded calls.
func (b *Box) Show(ctx context.Context, key counter.Key) (shown Shown, unread, err error) {
	shown.Letter, unread, err = b.Get(ctx, key)
	if err != nil {
		return Shown{}, nil, err
	}
	task, err := b.Retry(key)
	if err != nil {
		return Shown{}, nil, err
	}
	if task != nil {
		shown.Retry = &LastRetry{
			ID: task.ID, Queue: tasks.QueueRetry, State: task.State.String(), Retried: task.Retried, LastError: task.LastErr,
		}
	}
	return shown, unread, nil
}
