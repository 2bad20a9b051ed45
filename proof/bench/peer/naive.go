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
	// queue is the queue of the tasks. A task's payload is the amount, a space, and the key.
	queue   = "naive"
	typeAdd = "add"

	// servers is the number of Asynq servers in the process. One server fetches tasks one at a time, so its concurrency alone does
	// not increase its rate.
	servers = 4
	// checkInterval is the time between two checks of an empty queue; Asynq's default is 1 s.
	checkInterval = 20 * time.Millisecond
)

// naive is the simplest write-behind, to compare its speed. A task increments its row, since tasks run in any order. So a task that
// runs twice counts twice, and a write whose task was not sent is lost. naive keeps no version in Redis, and answers 0 for it.
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

// naiveWorker executes the tasks of naive.
func naiveWorker() error {
	db, err := openPostgres(context.Background(), upsertSQL)
	if err != nil {
		return err
	}
	defer func() { _ = db.close() }()
	client, err := openRedis()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()

	handler := asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error { return execute(ctx, db, task) })
	for range servers {
		server := asynq.NewServerFromRedisClient(client, asynq.Config{
			Concurrency:       postgresConns / servers,
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

// execute executes one task.
func execute(ctx context.Context, db *postgres, task *asynq.Task) error {
	amount, key, _ := strings.Cut(string(task.Payload()), " ")
	by, err := strconv.ParseInt(amount, 10, 64)
	if err != nil {
		return fmt.Errorf("parse the task: %w", err)
	}
	_, _, err = db.add(ctx, key, by)
	return err
}

// left answers with the number of tasks in the queue, including archived ones.
func left(c echo.Context, client redis.UniversalClient, inspector *asynq.Inspector) error {
	// A queue exists from its first task on, and GetQueueInfo has no distinct error for a missing queue.
	exists, err := client.SIsMember(c.Request().Context(), "asynq:queues", queue).Result()
	if err != nil {
		return fmt.Errorf("read the queues: %w", err)
	}
	if !exists {
		return c.JSON(http.StatusOK, map[string]int{"left": 0})
	}
	info, err := inspector.GetQueueInfo(queue)
	if err != nil {
		return fmt.Errorf("read the size of the queue: %w", err)
	}
	return c.JSON(http.StatusOK, map[string]int{"left": info.Size})
}

// nothing rejects increments, which a worker does not serve.
func nothing(context.Context, string, int64) (counter, error) {
	return counter{}, echo.NewHTTPError(http.StatusNotFound, "the worker does not serve increments")
}
