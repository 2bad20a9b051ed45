package main

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	batchSize = 1000
	// batchConnections are enough to keep both the api and Redis busy. Batches on more connections would only wait.
	batchConnections = 8
	// pipelined is the number of commands in flight on each connection of redis-benchmark.
	pipelined = 16
	// incrementsPerSecond is the approximate rate of redis-benchmark. It sets the number of commands so that the run takes b.seconds.
	incrementsPerSecond = 400_000
)

// batchAfterwrite measures increments in batches over HTTP, while one worker flushes.
func batchAfterwrite(v world.Version) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		sys, err := b.running(ctx, v)
		if err != nil {
			return err
		}
		spec := load.HTTPSpec{URL: sys.api.URL, Keys: load.Uniform, Space: space, Connections: batchConnections, Batch: batchSize}
		warm, result, err := b.loadTwice(ctx, spec, nothing)
		if err != nil {
			return err
		}
		ended := time.Now()
		if err := sys.stage.Drained(ctx, drainPatience); err != nil {
			return err
		}
		name := "batch/" + string(v)
		err = b.settle(ctx, name, sys, report.Count{
			Load: (warm.Requests + result.Requests) * batchSize, Cut: 2 * batchConnections * batchSize,
		}, 0)
		if err != nil {
			return err
		}
		drain, err := drainAfter(ctx, sys.stage, ended)
		if err != nil {
			return err
		}
		b.note(name+"/rate", result.PerSecond*batchSize)
		b.note(name+"/sustained", float64(result.Requests*batchSize)/(result.Seconds+drain))
		return nil
	}
}

// batchIncrBy measures INCRBY on the same number of plain strings, without HTTP, JSON, versions and flushes. Redis and its load use
// one core each.
func batchIncrBy(ctx context.Context, b *bench) error {
	stage, err := b.peerStage(ctx, "")
	if err != nil {
		return err
	}
	rate := 0.0
	sent := 0
	for _, n := range []int{incrementsPerSecond, incrementsPerSecond * b.seconds} { // the first run is the warm-up
		if rate, err = load.RedisBenchmark(ctx, stage.RedisURL, pipelined, n, space); err != nil {
			return err
		}
		sent += n
	}
	err = b.checkPlain(ctx, "batch/incrby", stage, report.Count{Load: int64(sent), Cut: int64(2 * load.RedisOvershoot(pipelined))})
	if err != nil {
		return err
	}
	b.note("batch/incrby/rate", rate)
	return nil
}
