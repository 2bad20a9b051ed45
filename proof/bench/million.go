package main

import (
	"context"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	million = 1_000_000
	// drawnMax is the maximum number of keys that wrk draws from. wrk.lua keeps a request for each key in memory.
	drawnMax = million

	// roomy allows all keys to be dirty at the same time.
	roomy        = "AFTERWRITE_MAX_DIRTY=20000000"
	drainWorkers = 2
)

// keysOf measures figures that depend on the number of existing keys. Later rounds use the same stage. The names of the figures begin
// with the names of the stage and the version:
//
//   - write: the CPU time of a single increment in all processes, while all keys are dirty and no worker runs;
//   - drain and steady: the rates at which two workers flush all keys, as updates of existing rows;
//   - row: the CPU time of a flushed row in all processes.
//
// It measures only figures that a chosen comparison needs.
func keysOf(stageName string, v world.Version, keys int) func(context.Context, *bench) error {
	return keysOn(stageName+"/"+string(v), world.StageOptions{Name: stageName, Version: v, Large: true}, keys)
}

// keysOn is keysOf on a stage with these options.
func keysOn(name string, options world.StageOptions, keys int) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		stage, err := b.seeded(ctx, options, keys)
		if err != nil {
			return err
		}
		sys, err := on(ctx, stage, drainWorkers)
		if err != nil {
			return err
		}
		if err := sys.startAPI(ctx, roomy); err != nil {
			return err
		}
		var count report.Count
		if b.wanted(name+"/write") || b.wanted(name+"/drain") || b.wanted(name+"/steady") {
			if err := b.dirtyAndDrain(ctx, name, sys, keys, &count); err != nil {
				return err
			}
		}
		if b.wanted(name + "/row") {
			flushed, err := b.costOfRow(ctx, name, sys, keys)
			if err != nil {
				return err
			}
			count.Load += int64(flushed)
		}
		return b.settle(ctx, name, sys, count, 0)
	}
}

// seeded returns a stage with so many rows, all warm and clean. The first round creates it.
func (b *bench) seeded(ctx context.Context, options world.StageOptions, keys int) (*world.Stage, error) {
	_, known := b.stages[options]
	stage, err := b.stage(ctx, options)
	if err != nil || known {
		return stage, err
	}
	if err := stage.Reset(ctx, keys); err != nil {
		return nil, err
	}
	api, err := stage.Start(ctx, "api", roomy)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, api.URL, 1, keys, ""); err != nil {
		return nil, err
	}
	if err := stage.StopAll(); err != nil {
		return nil, err
	}
	_, err = stage.Drain(ctx)
	return stage, err
}

// dirtyAndDrain writes each key, measures further writes, and measures the drain. It adds its writes to count.
func (b *bench) dirtyAndDrain(ctx context.Context, name string, sys *system, keys int, count *report.Count) error {
	if err := fill(ctx, sys.api.URL, 1, keys, ""); err != nil {
		return err
	}
	count.Load += int64(keys)
	if b.wanted(name + "/write") {
		warm, result, err := b.costOfWrite(ctx, name, sys, keys)
		if err != nil {
			return err
		}
		count.Load += warm.Requests + result.Requests
		count.Cut += 2 * connections
	}
	began, err := sys.beginDrain(ctx)
	if err != nil {
		return err
	}
	drained, err := sys.endDrain(ctx, began, 0)
	if err != nil {
		return err
	}
	b.note(name+"/drain", drained.rate)
	b.note(name+"/steady", drained.steady)
	return sys.stopFlushing()
}

// drained holds the rates of a drain in rows per second.
type drained struct {
	rate   float64 // from when the workers were ready until no key was dirty
	steady float64 // between 10 % and 90 % of the rows
}

// beginDrain starts the workers and the scheduler, and returns the time when they are ready. Rows flushed earlier do not count.
func (sys *system) beginDrain(ctx context.Context) (began time.Time, err error) {
	if err := sys.stage.Settle(ctx); err != nil { // the append-only file has grown
		return time.Time{}, err
	}
	err = sys.startFlushing(ctx)
	return time.Now(), err
}

// endDrain waits until left or fewer keys are dirty, and calculates the rates.
func (sys *system) endDrain(ctx context.Context, began time.Time, left int64) (drained, error) {
	dirty, err := sys.stage.DrainedTo(ctx, left, drainPatience)
	if err != nil {
		return drained{}, err
	}
	rows, err := sys.stage.FlushedSince(ctx, began)
	if err != nil {
		return drained{}, err
	}
	// If keys were still dirty after the last row was written, the drain ended later.
	ended := rows.Last
	if dirty.After(ended) {
		ended = dirty
	}
	middle := rows.Ninetieth.Sub(rows.Tenth).Seconds()
	if rows.Rows == 0 || middle <= 0 {
		return drained{}, fmt.Errorf("%w: the drain ended before the workers were ready", errSum)
	}
	return drained{
		rate:   float64(rows.Rows) / ended.Sub(began).Seconds(),
		steady: 0.8 * float64(rows.Rows) / middle,
	}, nil
}

const (
	pgbenchRows    = 1000 // AFTERWRITE_FLUSH_BATCH
	pgbenchClients = 4
)

// pgbenchUpsert measures the flush's upsert alone, on a million existing rows.
func pgbenchUpsert(ctx context.Context, b *bench) error {
	options := world.StageOptions{Name: "pgbench-upsert"}
	_, known := b.stages[options]
	stage, err := b.stage(ctx, options)
	if err != nil {
		return err
	}
	if known {
		err = stage.Settle(ctx)
	} else {
		err = stage.Reset(ctx, million)
	}
	if err != nil {
		return err
	}
	rate, err := load.PGBenchUpsert(ctx, stage.DatabaseURL, pgbenchRows, pgbenchClients, b.duration())
	if err != nil {
		return err
	}
	b.note("pgbench/rate", rate)
	return nil
}
