package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/hibiken/asynq"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/proof/bench/peer/frame"
)

// typeAdd is the only type of task. Its payload is the amount, a space, and the key.
const typeAdd = "add"

// redisConns is as many as the api of afterwrite has.
const redisConns = 64

func serve() error {
	redis, err := cache.Connect(frame.Env("REDIS_URL"), redisConns)
	if err != nil {
		return err
	}
	defer func() { _ = redis.Close() }()
	tasks := asynq.NewClientFromRedisClient(redis)
	return frame.Serve(func(ctx context.Context, key string, by int64) (frame.Counter, error) {
		value, err := redis.IncrBy(ctx, "c:"+key, by).Result()
		if err != nil {
			return frame.Counter{}, fmt.Errorf("add in redis: %w", err)
		}
		payload := strconv.AppendInt(make([]byte, 0, 21+len(key)), by, 10)
		payload = append(append(payload, ' '), key...)
		_, err = tasks.EnqueueContext(ctx, asynq.NewTask(typeAdd, payload), asynq.Queue(queue))
		return frame.Counter{Key: key, Value: value}, err
	})
}
