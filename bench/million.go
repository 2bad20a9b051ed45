package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/bench/load"
	"github.com/afterwrite/afterwrite/bench/report"
	"github.com/afterwrite/afterwrite/bench/world"
)

const (
	million = 1_000_000
	// drawn is the most keys that wrk draws from.
	drawn = million

	// Flushed rows cost too little to be seen in one flush of few, so several are measured, each of as many rows whatever
	// the number of keys: it is the size of the table and of Redis that is to make the difference, not that of the flush.
	costRows   = 10_000
	costCycles = 3

	pgbenchRows    = 1000 // AFTERWRITE_FLUSH_BATCH
	pgbenchClients = 4

	// roomy lets all keys be dirty at the same time.
	roomy = "AFTERWRITE_MAX_DIRTY=20000000"
)

// keysOf measures what depends on the number of keys that exist, in a stage of that name, which later rounds go on with:
//
//   - write: the CPU time of a single increment, of all processes, while all keys are dirty and nothing flushes;
//   - drain and steady: how fast two workers bring all of them to Postgres, as updates of existing rows;
//   - row: the CPU time of a flushed row, of all processes.
func keysOf(name string, keys int) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		stage, err := b.seeded(ctx, name, keys)
		if err != nil {
			return err
		}
		before, _, err := stage.Sum(ctx)
		if err != nil {
			return err
		}
		sys := &system{workers: make([]*world.Process, 2)}
		if sys.api, err = stage.Start(ctx, "api", roomy); err != nil {
			return err
		}
		if err := fill(ctx, sys.api.URL, 1, keys); err != nil {
			return err
		}
		warm, result, err := b.costOfWrite(ctx, name, sys, keys)
		if err != nil {
			return err
		}
		if err := b.drain(ctx, name, stage, sys); err != nil {
			return err
		}
		flushed, err := b.costOfRow(ctx, name, stage, sys, keys)
		if err != nil {
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
		return b.check(name, own.of(report.Count{
			Stored: sum - before,
			Load:   warm.Requests + result.Requests + int64(keys+flushed), Cut: 2 * connections,
		}))
	}
}

// seeded is a stage with so many rows, which Redis has too. Its first round makes them; before each, the servers come to rest.
func (b *bench) seeded(ctx context.Context, name string, keys int) (*world.Stage, error) {
	_, known := b.stages[name]
	stage, err := b.stage(ctx, name)
	if err != nil {
		return nil, err
	}
	if known {
		return stage, stage.Settle(ctx)
	}
	return stage, errors.Join(stage.Reset(ctx, keys), stage.Warm(ctx, keys))
}

// costOfWrite is the CPU time of a write to a key that is dirty already, by everything but the load.
func (b *bench) costOfWrite(ctx context.Context, name string, sys *system, keys int) (warm, result load.HTTPResult, err error) {
	only := &system{api: sys.api}
	var before cpuTimes
	spec := load.HTTPSpec{URL: sys.api.URL, Keys: load.Uniform, Space: min(keys, drawn), Connections: connections}
	warm, result, err = b.both(ctx, spec, func() (err error) {
		before, err = b.readCPU(only)
		return err
	})
	if err != nil {
		return warm, result, err
	}
	after, err := b.readCPU(only)
	if err != nil {
		return warm, result, err
	}
	b.note(name+"/write", after.since(before).sum().Seconds()*1e6/float64(result.Requests))
	return warm, result, nil
}

// drain starts the workers and times the drain from when they are ready; what they had drained by then does not count.
func (b *bench) drain(ctx context.Context, name string, stage *world.Stage, sys *system) error {
	if err := stage.Settle(ctx); err != nil { // the fill has left a long file in Redis
		return err
	}
	if err := sys.startFlushing(ctx, stage); err != nil {
		return err
	}
	began := time.Now()
	all, err := stage.Dirty(ctx)
	if err != nil {
		return err
	}
	var top, low time.Time // when 90 % and when 10 % were left
	var atTop, atLow int64
	err = stage.Await(ctx, drainPatience, "the drain", func(ctx context.Context) (bool, error) {
		dirty, err := stage.Dirty(ctx)
		if top.IsZero() && dirty <= all*9/10 {
			top, atTop = time.Now(), dirty
		}
		if low.IsZero() && dirty <= all/10 {
			low, atLow = time.Now(), dirty
		}
		return dirty == 0, err
	})
	if err != nil {
		return err
	}
	b.note(name+"/drain", float64(all)/time.Since(began).Seconds())
	if middle := low.Sub(top).Seconds(); middle > 0 {
		b.note(name+"/steady", float64(atTop-atLow)/middle)
	}
	for _, p := range append(sys.workers, sys.scheduler) {
		err = errors.Join(err, p.Stop())
	}
	sys.workers, sys.scheduler = nil, nil
	return err
}

// costOfRow is the CPU time of a flushed row: of a worker that only drains, and of the two servers meanwhile, less what the
// same costs when nothing is dirty. It returns how many rows were flushed.
func (b *bench) costOfRow(ctx context.Context, name string, stage *world.Stage, sys *system, keys int) (int, error) {
	idle, err := b.oneDrain(ctx, stage)
	if err != nil {
		return 0, err
	}
	var used time.Duration
	for range costCycles {
		if err := fill(ctx, sys.api.URL, keys/costRows, costRows); err != nil {
			return 0, err
		}
		cycle, err := b.oneDrain(ctx, stage)
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
func (b *bench) oneDrain(ctx context.Context, stage *world.Stage) (time.Duration, error) {
	before, err := b.readCPU(&system{})
	if err != nil {
		return 0, err
	}
	worker, err := stage.Drain(ctx)
	if err != nil {
		return 0, err
	}
	after, err := b.readCPU(&system{})
	if err != nil {
		return 0, err
	}
	return worker + after.since(before).sum(), nil
}

// pgbench measures the statement of the flush alone, on a table like that of million: as many rows, which are all updated in
// every round.
func pgbench(ctx context.Context, b *bench) error {
	_, known := b.stages["pgbench"]
	stage, err := b.stage(ctx, "pgbench")
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

// inserts measures the drain of a million keys that Postgres does not have.
func inserts(ctx context.Context, b *bench) error {
	stage, err := b.stage(ctx, "inserts")
	if err != nil {
		return err
	}
	if err := stage.Reset(ctx, 0); err != nil {
		return err
	}
	sys := &system{workers: make([]*world.Process, 2)}
	if sys.api, err = stage.Start(ctx, "api", roomy); err != nil {
		return err
	}
	if err := fill(ctx, sys.api.URL, 1, million); err != nil {
		return err
	}
	if err := b.drain(ctx, "inserts", stage, sys); err != nil {
		return err
	}
	own, err := sys.counted(ctx)
	if err != nil {
		return err
	}
	sum, rows, err := stage.Sum(ctx)
	if err == nil && rows != million {
		err = fmt.Errorf("%w: there are %d rows", errSum, rows)
	}
	if err != nil {
		return err
	}
	return b.check("inserts", own.of(report.Count{Stored: sum, Load: million}))
}
