package load

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
)

const (
	redisClients = 50
	// maxCalls bounds one RedisBenchmark.
	maxCalls = 100_000_000
	// askKeys is how many keys are asked for at once afterwards.
	askKeys = 1000
)

// RedisBenchmark runs script (cache.ApplyScript) n times with one increment by 1 a call, over space keys of one shard from 50
// connections, each with pipeline calls under way, and returns calls per second. redis-benchmark and Redis take a core each.
//
// The increments are blind (I1): an i1 would do nothing to keys that have no entry. They begin at 0 in an empty database,
// and the first of each key makes it dirty. Afterwards Redis is asked for the sum of the counters: what is not n more
// than before is an error. It blocks until all is done, or ctx is.
func RedisBenchmark(ctx context.Context, redisURL, script string, pipeline, n, space int) (perSecond float64, err error) {
	perSecond, err = runRedisBenchmark(ctx, redisURL, script, pipeline, n, space)
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w", err)
	}
	return perSecond, nil
}

func runRedisBenchmark(ctx context.Context, redisURL, script string, pipeline, n, space int) (float64, error) {
	if pipeline < 1 || n < 1 || n > maxCalls || space < 1 || space > maxSpace {
		return 0, fmt.Errorf("it takes 1 to %d calls over 1 to %d keys", maxCalls, maxSpace)
	}
	program, err := find("redis-benchmark", "redis-tools")
	if err != nil {
		return 0, err
	}
	arguments, err := redisTarget(redisURL)
	if err != nil {
		return 0, err
	}
	client, err := cache.Connect(redisURL, 1)
	if err != nil {
		return 0, err
	}
	defer func() { _ = client.Close() }()
	sha, err := client.ScriptLoad(ctx, script).Result()
	if err != nil {
		return 0, err
	}
	before, err := sumOfCounters(ctx, client, space)
	if err != nil {
		return 0, err
	}

	arguments = append(arguments, "-P", strconv.Itoa(pipeline), "-c", strconv.Itoa(redisClients), "-n", strconv.Itoa(n),
		"-r", strconv.Itoa(space), "--csv", "evalsha", sha, "1", countersOfShard+"__rand_int__", "1 86400000", "I1")
	out, err := output(exec.CommandContext(ctx, program, arguments...)) //nolint:gosec // a program of the system
	if err != nil {
		return 0, err
	}

	after, err := sumOfCounters(ctx, client, space)
	if err != nil {
		return 0, err
	}
	// It sends whole pipelines, and stops when it has n answers.
	if counted := after - before; counted < int64(n) || counted > int64(n+redisClients*pipeline) {
		return 0, fmt.Errorf("it made %d calls, and the counters rose by %d", n, counted)
	}
	return parseRedisBenchmark(out)
}

// redisTarget says in redis-benchmark's way where Redis is. `ps` shows the password of the private server: it has no other way.
func redisTarget(redisURL string) ([]string, error) {
	options, err := redis.ParseURL(redisURL)
	if err != nil {
		return nil, err
	}
	arguments := []string{"--dbnum", strconv.Itoa(options.DB)}
	if options.Password != "" {
		arguments = append(arguments, "-a", options.Password)
	}
	if options.Network == "unix" {
		return append(arguments, "-s", options.Addr), nil
	}
	host, port, err := net.SplitHostPort(options.Addr)
	return append(arguments, "-h", host, "-p", port), err
}

// countersOfShard begins the names of the counters, all of one shard: which it is does not matter to Redis.
const countersOfShard = "{aw:07}:c:counter:"

func sumOfCounters(ctx context.Context, client redis.UniversalClient, space int) (int64, error) {
	var sum int64
	for first := 0; first < space; first += askKeys {
		values, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for key := first; key < min(first+askKeys, space); key++ {
				pipe.HGet(ctx, fmt.Sprintf("%s%012d", countersOfShard, key), "v")
			}
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return 0, fmt.Errorf("read the counters: %w", err)
		}
		for _, value := range values {
			cmd, _ := value.(*redis.StringCmd)
			n, err := cmd.Int64()
			if err != nil && !errors.Is(err, redis.Nil) {
				return 0, fmt.Errorf("read a counter: %w", err)
			}
			sum += n
		}
	}
	return sum, nil
}

// parseRedisBenchmark reads the calls per second: the second column of the last line.
func parseRedisBenchmark(out string) (float64, error) {
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) < 2 || len(rows[0]) < 2 || rows[0][1] != "rps" {
		return 0, fmt.Errorf("its output cannot be read: %q", out)
	}
	return strconv.ParseFloat(rows[len(rows)-1][1], 64)
}
