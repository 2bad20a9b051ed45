package cache

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// send sends a pipeline, and returns the first of its commands' errors. Each command then has its own, also where Redis refused the
// connection itself (a wrong password): of that the client tells none of them, and each would look like one that was answered with 0.
func send(ctx context.Context, pipe redis.Pipeliner) error {
	commands, err := pipe.Exec(ctx)
	if err != nil && !slices.ContainsFunc(commands, func(c redis.Cmder) bool { return c.Err() != nil }) {
		for _, c := range commands {
			c.SetErr(err)
		}
	}
	return err
}
