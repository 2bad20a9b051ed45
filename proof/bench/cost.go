package main

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/load"
)

const (
	// One flush of few rows is too short to measure, so there are several. Their size does not depend on the number of keys: what
	// is compared is the size of the table and of Redis, not the size of the flush.
	costRows   = 10_000
	costCycles = 3
)

// costOfWrite measures the CPU time of a write to a key that is already dirty, in all processes but the load generator.
func (b *bench) costOfWrite(ctx context.Context, name string, sys *system, keys int) (warm, result load.HTTPResult, err error) {
	var before cpuTimes
	spec := singles(sys.api.URL, load.Uniform, load.FormIncrement)
	spec.Space = min(keys, drawn)
	warm, result, err = b.both(ctx, spec, func() (err error) {
		before, err = b.readCPU(sys)
		return err
	})
	if err != nil {
		return warm, result, err
	}
	after, err := b.readCPU(sys)
	if err != nil {
		return warm, result, err
	}
	b.note(name+"/write", after.since(before).sum().Seconds()*1e6/float64(result.Requests))
	return warm, result, nil
}

// costOfRow measures the CPU time of a flushed row: of a worker that only drains and of the two servers, minus the cost of a drain
// with nothing dirty. It returns the number of rows flushed.
//
// It waits for the servers to settle first. Otherwise autovacuum would still work on the drained large table, and its CPU time
// would count for these rows.
func (b *bench) costOfRow(ctx context.Context, name string, sys *system, keys int) (int, error) {
	if err := sys.stage.Settle(ctx); err != nil {
		return 0, err
	}
	idle, err := b.oneDrain(ctx, sys)
	if err != nil {
		return 0, err
	}
	var used time.Duration
	for range costCycles {
		if err := fill(ctx, sys.api.URL, keys/costRows, costRows); err != nil {
			return 0, err
		}
		cycle, err := b.oneDrain(ctx, sys)
		if err != nil {
			return 0, err
		}
		used += cycle - idle
	}
	const rows = costCycles * costRows
	b.note(name+"/row", used.Seconds()*1e6/rows)
	return rows, nil
}

// oneDrain drains everything and returns the CPU time that took.
func (b *bench) oneDrain(ctx context.Context, sys *system) (time.Duration, error) {
	servers := &system{stage: sys.stage}
	before, err := b.readCPU(servers)
	if err != nil {
		return 0, err
	}
	worker, err := sys.stage.Drain(ctx)
	if err != nil {
		return 0, err
	}
	after, err := b.readCPU(servers)
	if err != nil {
		return 0, err
	}
	return worker + after.since(before).sum(), nil
}
