package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/proof/bench/peer/frame"
)

const (
	// servers is how many Asynq servers the process has. One fetches its tasks one at a time, which bounds what it can do
	// whatever its concurrency is.
	servers = 4
	// checkInterval is how long an idle server sleeps; Asynq's default is 1 s.
	checkInterval = 20 * time.Millisecond
)

func work() error {
	postgres, err := frame.OpenPostgres(context.Background())
	if err != nil {
		return err
	}
	defer func() { _ = postgres.Close() }()
	client, err := cache.Connect(frame.Env("REDIS_URL"), redisConns)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()

	handler := asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error { return add(ctx, postgres, task) })
	for range servers {
		server := asynq.NewServerFromRedisClient(client, asynq.Config{
			Concurrency:       max(frame.PostgresConns()/servers, 1),
			Queues:            map[string]int{queue: 1},
			TaskCheckInterval: checkInterval,
			LogLevel:          asynq.WarnLevel,
		})
		if err := server.Start(handler); err != nil {
			return fmt.Errorf("start asynq: %w", err)
		}
		defer server.Shutdown()
	}
	inspector := asynq.NewInspectorFromRedisClient(client)
	return frame.Serve(nothing, func(e *echo.Echo) { e.GET("/left", func(c echo.Context) error { return left(c, client, inspector) }) })
}

// add carries out one task.
func add(ctx context.Context, postgres *frame.Postgres, task *asynq.Task) error {
	amount, key, _ := strings.Cut(string(task.Payload()), " ")
	by, err := strconv.ParseInt(amount, 10, 64)
	if err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	_, _, err = postgres.Add(ctx, key, by)
	return err
}

// left answers how many tasks are not done, those included that Asynq has given up.
func left(c echo.Context, client redis.UniversalClient, inspector *asynq.Inspector) error {
	// Asynq knows a queue from its first task on, and has no error of its own for one that it does not know.
	known, err := client.SIsMember(c.Request().Context(), "asynq:queues", queue).Result()
	if err != nil {
		return fmt.Errorf("ask for the queues: %w", err)
	}
	if !known {
		return c.JSON(http.StatusOK, map[string]int{"left": 0})
	}
	info, err := inspector.GetQueueInfo(queue)
	if err != nil {
		return fmt.Errorf("ask what is left: %w", err)
	}
	return c.JSON(http.StatusOK, map[string]int{"left": info.Size})
}

// nothing is what a worker does for requests.
func nothing(context.Context, string, int64) (frame.Counter, error) {
	return frame.Counter{}, echo.NewHTTPError(http.StatusNotFound, "this is the worker")
}
