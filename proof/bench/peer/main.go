// Command peer runs one of the systems that the benchmark compares afterwrite with:
//
//   - noop parses the request and answers, without counting: the upper limit of Echo on this machine. On $RESP_ADDR it does so with
//     afterwrite's server of the Redis protocol: the upper limit of that.
//   - direct executes one prepared upsert in Postgres before it answers: the usual design of a service.
//   - update executes one prepared UPDATE of a column in an application's table before it answers.
//   - through writes to Redis and then to Postgres before it answers: write-through.
//   - naive increments in Redis, sends one Asynq task for each write, and answers. naive-worker executes one upsert for each task.
//
// All peers and afterwrite's api use the same Echo and the same HTTP server, with a request ID, recovery from panics, and a histogram
// of the durations. Peers are tuned, never handicapped: c.Bind and c.JSON would take longer, so they parse bodies and write answers
// without them.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/cache"
	operation "github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

const (
	redisConns    = 64 // as in afterwrite's api
	postgresConns = 20
)

func main() {
	peers := map[string]func() error{
		"noop": noop, "direct": direct(upsertSQL), "update": direct(updateSQL), "through": through,
		"naive": naive, "naive-worker": naiveWorker,
	}
	if len(os.Args) != 2 || peers[os.Args[1]] == nil {
		exit(fmt.Errorf("the only argument must be the name of a peer, not %q", os.Args[1:]))
	}
	exit(peers[os.Args[1]]())
}

func noop() error {
	get := func(c echo.Context) error {
		return answer(c, counter{key: c.Param("key"), value: 1, version: 1, synced: true})
	}
	listener, err := process.Listen(env("RESP_ADDR"), "RESP_ADDR")
	if err != nil {
		return err
	}
	go func() { exit(resp.New(answers{}, resp.Options{}).Serve(context.Background(), listener, nil)) }()
	return serve(func(_ context.Context, key string, by int64) (counter, error) {
		return counter{key: key, value: by, version: 1}, nil
	}, func(e *echo.Echo) { e.GET("/v1/counters/:key", get) })
}

// answers implements resp.Counters without counting.
type answers struct{}

func (answers) Do(_ context.Context, ops []operation.Operation, _ writepath.Options) []operation.Result {
	results := make([]operation.Result, len(ops))
	for i := range results {
		results[i].Counter = operation.Counter{Key: ops[i].Key, Value: ops[i].Amount, Version: 1, Exists: true, Known: true}
	}
	return results
}

func direct(statement string) func() error {
	return func() error {
		db, err := openPostgres(context.Background(), statement)
		if err != nil {
			return err
		}
		defer func() { _ = db.close() }()
		return serve(func(ctx context.Context, key string, by int64) (counter, error) {
			value, version, err := db.add(ctx, key, by)
			return counter{key: key, value: value, version: version, synced: true}, err
		})
	}
}

// through increments in both databases, so the order of the upserts of one counter does not matter.
func through() error {
	client, err := openRedis()
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	db, err := openPostgres(context.Background(), upsertSQL)
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
		return 0, fmt.Errorf("increment in redis: %w", err)
	}
	return value, nil
}
