package sample

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/tasks"
)

// paused returns which of our queues somebody has paused, in the order of their names, in one round trip. They are asked for one
// by one, since each is in a slot of its own.
func paused(ctx context.Context, client redis.UniversalClient) ([]string, error) {
	queues := slices.Sorted(maps.Keys(tasks.Queues()))
	marks := make([]*redis.IntCmd, len(queues))
	pipe := client.Pipeline()
	for i, queue := range queues {
		marks[i] = pipe.Exists(ctx, tasks.PausedKey(queue))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("ask which queues are paused: %w", err)
	}
	var found []string
	for i, queue := range queues {
		if marks[i].Val() > 0 {
			found = append(found, queue)
		}
	}
	return found, nil
}
