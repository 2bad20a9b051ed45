// Command through writes to Redis and then to Postgres before it answers: write-through. Both add, so that the order in which
// requests to one counter get to Postgres does not matter.
package main

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/proof/bench/peer/frame"
)

// redisConns is as many as there are cores to send on, many times over; a call waits for Redis only.
const redisConns = 64

func main() { frame.Exit(run()) }

func run() error {
	redis, err := cache.Connect(frame.Env("REDIS_URL"), redisConns)
	if err != nil {
		return err
	}
	defer func() { _ = redis.Close() }()
	postgres, err := frame.OpenPostgres(context.Background())
	if err != nil {
		return err
	}
	defer func() { _ = postgres.Close() }()
	return frame.Serve(func(ctx context.Context, key string, by int64) (frame.Counter, error) {
		value, err := redis.IncrBy(ctx, "c:"+key, by).Result()
		if err != nil {
			return frame.Counter{}, fmt.Errorf("add in redis: %w", err)
		}
		_, version, err := postgres.Add(ctx, key, by)
		return frame.Counter{Key: key, Value: value, Version: version, Synced: true}, err
	})
}
