package load

import (
	"context"
	"encoding/csv"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/local"
)

const (
	redisClients = 50
	// maxCalls bounds one RedisBenchmark.
	maxCalls = 100_000_000
)

// RedisBenchmark runs redis-benchmark: n times INCRBY 1 over space plain strings, with the same names as in the other loads, from 50
// connections with pipeline commands in flight on each. It returns commands per second. redis-benchmark and Redis use a core each.
// It blocks until it is done or ctx is.
//
// redis-benchmark sends whole pipelines and stops after n answers, so it may send RedisOvershoot(pipeline) more commands.
func RedisBenchmark(ctx context.Context, redisURL string, pipeline, n, space int) (perSecond float64, err error) {
	defer wrap(&err, "redis-benchmark")
	if pipeline < 1 || n < 1 || n > maxCalls || space < 1 || space > maxSpace {
		return 0, fmt.Errorf("it takes 1 to %d commands over 1 to %d keys", maxCalls, maxSpace)
	}
	program, err := find("redis-benchmark", "redis-tools")
	if err != nil {
		return 0, err
	}
	arguments, err := redisTarget(redisURL)
	if err != nil {
		return 0, err
	}
	arguments = append(arguments, "-P", strconv.Itoa(pipeline), "-c", strconv.Itoa(redisClients), "-n", strconv.Itoa(n),
		"-r", strconv.Itoa(space), "--csv", "INCRBY", defaultPrefix+"__rand_int__", "1")
	out, err := local.Program{Path: program, Args: arguments}.Output(ctx)
	if err != nil {
		return 0, err
	}
	return parseRedisBenchmark(out)
}

// RedisOvershoot is the number of commands that RedisBenchmark may send in addition to n.
func RedisOvershoot(pipeline int) int { return redisClients * pipeline }

// redisTarget is the address in redis-benchmark's flags. `ps` shows the password of the private server: there is no other way.
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

// parseRedisBenchmark reads the commands per second: the second column of the last line.
func parseRedisBenchmark(out string) (float64, error) {
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) < 2 || len(rows[0]) < 2 || rows[0][1] != "rps" {
		return 0, fmt.Errorf("its output cannot be read: %q", out)
	}
	return strconv.ParseFloat(rows[len(rows)-1][1], 64)
}
