package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/afterwrite/afterwrite/bench/load"
	"github.com/afterwrite/afterwrite/bench/report"
	"github.com/afterwrite/afterwrite/internal/cache"
)

const (
	batchSize = 1000
	// batchConnections keep the api busy while it decodes one batch and Redis works on another; more would only wait.
	batchConnections = 8
	// pipelined is how many calls each connection of redis-benchmark has under way.
	pipelined = 16
	// callsPerSecond is about what redis-benchmark does here, to make its run about as long as the others.
	callsPerSecond = 30_000
)

// batchAfterwrite measures operations in batches over HTTP, while one worker flushes.
func batchAfterwrite(ctx context.Context, b *bench) error {
	stage, sys, err := b.running(ctx, "single", space)
	if err != nil {
		return err
	}
	spec := load.HTTPSpec{URL: sys.api.URL, Keys: load.Uniform, Space: space, Connections: batchConnections, Batch: batchSize}
	warm, result, err := b.both(ctx, spec, nothing)
	if err != nil {
		return err
	}
	if err := stage.Drained(ctx, drainPatience); err != nil {
		return err
	}
	own, err := sys.counted(ctx)
	if err != nil {
		return err
	}
	sum, _, err := stage.Sum(ctx)
	if err != nil {
		return err
	}
	err = b.check("batch/afterwrite", own.of(report.Count{
		Stored: sum,
		Load:   (warm.Requests + result.Requests) * batchSize, Cut: 2 * batchConnections * batchSize,
	}))
	if err != nil {
		return err
	}
	b.note("batch/afterwrite/rate", result.PerSecond*batchSize)
	return nil
}

// batchRedis measures the script that the api sends, one operation a call, from redis-benchmark. Nothing flushes: Redis has
// both cores for itself and its load.
func batchRedis(ctx context.Context, b *bench) error {
	stage, err := b.stage(ctx, "single")
	if err != nil {
		return err
	}
	if err := errors.Join(stage.Reset(ctx, space), stage.Warm(ctx, space)); err != nil {
		return err
	}
	rate := 0.0
	for _, calls := range []int{space, callsPerSecond * b.seconds} { // the first warms up
		if rate, err = load.RedisBenchmark(ctx, stage.RedisURL, cache.ApplyScript(), pipelined, calls, space); err != nil {
			return err
		}
	}
	// It has to have done what it says: each call marks its key.
	dirty, err := stage.Dirty(ctx)
	if err != nil {
		return err
	}
	if least := int64(space / 2); dirty < least {
		return fmt.Errorf("%w: only %d keys are dirty", errSum, dirty)
	}
	b.note("batch/redis/rate", rate)
	return nil
}
