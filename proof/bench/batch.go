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
	// batchConnections keep the api busy while it decodes one batch and Redis works on another; more would only wait.
	batchConnections = 8
	// pipelined is how many commands each connection of redis-benchmark has under way.
	pipelined = 16
	// incrementsPerSecond is the approximate rate of redis-benchmark, so that its run takes as long as the others.
	incrementsPerSecond = 400_000
)

// batchAfterwrite measures operations in batches over HTTP, while one worker flushes.
func batchAfterwrite(v world.Version) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		sys, err := b.running(ctx, v)
		if err != nil {
			return err
		}
		spec := load.HTTPSpec{URL: sys.api.URL, Keys: load.Uniform, Space: space, Connections: batchConnections, Batch: batchSize}
		warm, result, err := b.both(ctx, spec, nothing)
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

// batchIncrBy measures INCRBY on as many plain strings: no HTTP, no JSON, no version, no flush. Redis and its load have a core
// each.
func batchIncrBy(ctx context.Context, b *bench) error {
	stage, err := b.peerStage(ctx, "")
	if err != nil {
		return err
	}
	rate := 0.0
	sent := 0
	for _, n := range []int{incrementsPerSecond, incrementsPerSecond * b.seconds} { // the first warms up
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
