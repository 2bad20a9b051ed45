package main

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/load"
)

const (
	// One flush of 10,000 rows is too short to measure, so there are several. The number of rows does not depend on the number of
	// keys, since the comparison is about the sizes of the table and of Redis.
	costRows   = 10_000
	costCycles = 3
)

// costOfWrite measures the CPU time of a write to a dirty key, in all processes except the load generator.
func (b *bench) costOfWrite(ctx context.Context, name string, sys *system, keys int) (warm, result load.HTTPResult, err error) {
	var before cpuTimes
	spec := singles(sys.api.URL, load.Uniform, load.FormIncrement)
	spec.Space = min(keys, drawnMax)
	warm, result, err = b.loadTwice(ctx, spec, func() (err error) {
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

// costOfRow measures the CPU time of a flushed row: the time of a worker that only drains and of the two servers, minus the time of a
// drain without dirty keys. It returns the number of flushed rows.
//
// It settles the servers first. Otherwise autovacuum might still work on the table, and its CPU time would count for these rows.
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
		if err := fill(ctx, sys.api.URL, keys/costRows, costRows, ""); err != nil {
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

// oneDrain drains all dirty keys, and returns the CPU time of the worker and the servers.
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
