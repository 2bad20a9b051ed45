// Command peer is what the benchmark measures afterwrite beside, one peer in each process:
//
//   - noop binds and answers, and counts nothing: the most that Echo can do here.
//   - direct writes to Postgres before it answers, one prepared statement a request: what most services do.
//   - through writes to Redis and then to Postgres before it answers: write-through.
//   - naive adds in Redis, sends one Asynq task for each write, and answers; naive-worker writes to Postgres, one upsert a task.
//
// They share with each other and with afterwrite's api the same Echo, served in the same way, with a request ID, recovery from
// panics and a histogram of the durations. A peer may be tuned and is never handicapped. So bodies are read and answers written
// without reflection: c.Bind and c.JSON would do the same and take longer.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// redisConns is as many as the api of afterwrite has.
const redisConns = 64

func main() {
	peers := map[string]func() error{
		"noop": noop, "direct": direct, "through": through, "naive": naive, "naive-worker": naiveWorker,
	}
	if len(os.Args) != 2 || peers[os.Args[1]] == nil {
		exit(fmt.Errorf("it takes the name of a peer, not %q", os.Args[1:]))
	}
	exit(peers[os.Args[1]]())
}

func noop() error {
	get := func(c echo.Context) error {
		return answer(c, counter{key: c.Param("key"), value: 1, version: 1, synced: true})
	}
	return serve(func(_ context.Context, key string, by int64) (counter, error) {
		return counter{key: key, value: by, version: 1}, nil
	}, func(e *echo.Echo) { e.GET("/v1/counters/:key", get) })
}

func direct() error {
	db, err := openPostgres(context.Background())
	if err != nil {
		return err
	}
	defer func() { _ = db.close() }()
	return serve(func(ctx context.Context, key string, by int64) (counter, error) {
		value, version, err := db.add(ctx, key, by)
		return counter{key: key, value: value, version: version, synced: true}, err
	})
}

// through adds in both, so that the order in which requests to one counter get to Postgres does not matter.
func through() error {
	client, err := openRedis()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	db, err := openPostgres(context.Background())
	if err != nil {
		return err
	}
	defer func() { _ = db.close() }()
	return serve(func(ctx context.Context, key string, by int64) (counter, error) {
		value, err := addInRedis(ctx, client, key, by)
		if err != nil {
			return counter{}, err
		}
		_, version, err := db.add(ctx, key, by)
		return counter{key: key, value: value, version: version, synced: true}, err
	})
}

func openRedis() (redis.UniversalClient, error) { //nolint:ireturn // as cache.Connect
	return cache.Connect(env("REDIS_URL"), redisConns)
}

func addInRedis(ctx context.Context, client redis.UniversalClient, key string, by int64) (int64, error) {
	value, err := client.IncrBy(ctx, "c:"+key, by).Result()
	if err != nil {
		return 0, fmt.Errorf("add in redis: %w", err)
	}
	return value, nil
}
