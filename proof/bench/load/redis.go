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

const redisClients = 50

// RedisBenchmark runs redis-benchmark with n commands INCRBY 1 on space plain strings, named as in the other loads. 50 connections
// have pipeline commands in flight each. It returns commands per second. redis-benchmark and Redis use one core each.
//
// redis-benchmark sends whole pipelines and stops after n answers, so it may send up to RedisOvershoot(pipeline) more commands.
func RedisBenchmark(ctx context.Context, redisURL string, pipeline, n, space int) (perSecond float64, err error) {
	defer wrap(&err, "redis-benchmark")
	program, err := find("redis-benchmark", "redis-tools")
	if err != nil {
		return 0, err
	}
	arguments, err := redisTarget(redisURL)
	if err != nil {
		return 0, err
	}
	arguments = append(arguments, "-P", strconv.Itoa(pipeline), "-c", strconv.Itoa(redisClients), "-n", strconv.Itoa(n),
		"-r", strconv.Itoa(space), "--csv", "INCRBY", keyPrefix+"__rand_int__", "1")
	out, err := local.Program{Path: program, Args: arguments}.Output(ctx)
	if err != nil {
		return 0, err
	}
	return parseRedisBenchmark(out)
}

// RedisOvershoot returns the maximum number of commands that RedisBenchmark sends beyond n.
func RedisOvershoot(pipeline int) int { return redisClients * pipeline }

// redisTarget returns the address as flags of redis-benchmark. Other users can see the password of this private server: there is no
// other way to pass it.
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

// parseRedisBenchmark parses the commands per second: the second column of the last line.
func parseRedisBenchmark(out string) (float64, error) {
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil || len(rows) < 2 || len(rows[0]) < 2 || rows[0][1] != "rps" {
		return 0, fmt.Errorf("cannot parse the output: %q", out)
	}
	return strconv.ParseFloat(rows[len(rows)-1][1], 64)
}
