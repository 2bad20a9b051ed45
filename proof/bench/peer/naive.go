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
)

const (
	// queue holds the tasks. The payload of one is the amount, a space, and the key.
	queue   = "naive"
	typeAdd = "add"

	// servers is how many Asynq servers the process has. One fetches its tasks one at a time, which bounds what it can do
	// whatever its concurrency is.
	servers = 4
	// checkInterval is how long an idle server sleeps; Asynq's default is 1 s.
	checkInterval = 20 * time.Millisecond
)

// naive is write-behind as one would begin. A task adds to its row, since tasks run in any order. So one that runs twice counts
// twice, and a write whose task could not be sent is lost: what is measured is its speed. It keeps no version in Redis and answers
// 0 for it.
func naive() error {
	client, err := openRedis()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	tasks := asynq.NewClientFromRedisClient(client)
	return serve(func(ctx context.Context, key string, by int64) (counter, error) {
		value, err := addInRedis(ctx, client, key, by)
		if err != nil {
			return counter{}, err
		}
		payload := strconv.AppendInt(make([]byte, 0, 21+len(key)), by, 10)
		payload = append(append(payload, ' '), key...)
		_, err = tasks.EnqueueContext(ctx, asynq.NewTask(typeAdd, payload), asynq.Queue(queue))
		return counter{key: key, value: value}, err
	})
}

// naiveWorker carries out the tasks of naive.
func naiveWorker() error {
	db, err := openPostgres(context.Background())
	if err != nil {
		return err
	}
	defer func() { _ = db.close() }()
	client, err := openRedis()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()

	handler := asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error { return carryOut(ctx, db, task) })
	for range servers {
		server := asynq.NewServerFromRedisClient(client, asynq.Config{
			Concurrency:       max(postgresConns()/servers, 1),
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
	return serve(nothing, func(e *echo.Echo) { e.GET("/left", func(c echo.Context) error { return left(c, client, inspector) }) })
}

// carryOut carries out one task.
func carryOut(ctx context.Context, db *postgres, task *asynq.Task) error {
	amount, key, _ := strings.Cut(string(task.Payload()), " ")
	by, err := strconv.ParseInt(amount, 10, 64)
	if err != nil {
		return fmt.Errorf("read the task: %w", err)
	}
	_, _, err = db.add(ctx, key, by)
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
func nothing(context.Context, string, int64) (counter, error) {
	return counter{}, echo.NewHTTPError(http.StatusNotFound, "this is the worker")
}
