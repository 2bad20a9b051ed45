package load

import (
	"context"
	"errors"
	"time"
)

// RedisBenchmark runs script (cache.ApplyScript) with one blind increment a call, n times over space keys from 50 connections, each
// with that many calls under way, and returns calls per second.
func RedisBenchmark(ctx context.Context, redisURL, script string, pipeline, n, space int) (perSecond float64, err error) {
	return 0, errors.New("TODO")
}

// PGBench runs the flush's statement with that many rows a batch and returns rows per second.
func PGBench(ctx context.Context, dsn string, rows, clients int, duration time.Duration) (perSecond float64, err error) {
	return 0, errors.New("TODO")
}
