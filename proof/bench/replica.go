package main

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

// replicaConnections are the connections of the loads on the Redis with a replica: 64 clients, as in a service with a pool.
const replicaConnections = 64

// replicated measures increments on a Redis with a replica, while one worker flushes: single ones, or in batches. durability is
// AFTERWRITE_DURABILITY of the api.
func replicated(durability string, keys load.Keys, batch int) func(context.Context, *bench) error {
	name := replicatedName(durability, keys, batch)
	return func(ctx context.Context, b *bench) error {
		stage, err := b.preparedOn(ctx, world.StageOptions{Name: "replicated", Replicated: true}, space)
		if err != nil {
			return err
		}
		sys, err := start(ctx, stage, "AFTERWRITE_DURABILITY="+durability)
		if err != nil {
			return err
		}
		spec, each := singles(sys.api.URL, keys, load.FormIncrement), 1
		spec.Connections = replicaConnections
		if batch > 0 {
			spec.Batch, spec.Connections, each = batch, batchConnections, batch
		}
		var used cpuTimes
		warm, result, err := b.loadTwice(ctx, spec, func() (err error) {
			used, err = b.readCPU(sys)
			return err
		})
		if err != nil {
			return err
		}
		after, err := b.readCPU(sys)
		if err != nil {
			return err
		}
		ended := time.Now()
		if err := stage.Drained(ctx, drainPatience); err != nil {
			return err
		}
		err = b.settle(ctx, name, sys, report.Count{
			Load: (warm.Requests + result.Requests) * int64(each), Cut: int64(2 * spec.Connections * each),
		}, 0)
		if err != nil {
			return err
		}
		used = after.since(used)
		for _, process := range []string{"api", "redis", "replica"} {
			b.note(name+"/"+process, perMillion(used[process], result.Requests*int64(each)))
		}
		result.PerSecond *= float64(each)
		result.Requests *= int64(each)
		return b.noteSingle(ctx, stage, name, result, ended)
	}
}

// replicatedName names a run: replicated-replica-uniform, or replicated-memory-batch.
func replicatedName(durability string, keys load.Keys, batch int) string {
	if batch > 0 {
		return "replicated-" + durability + "-batch"
	}
	return "replicated-" + durability + "-" + string(keys)
}
