package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

// drainPatience is the time limit for a drain. A naive-worker executes the writes of some seconds one by one.
const drainPatience = 5 * time.Minute

// singleStage is the name of the stage of single requests and batches.
const singleStage = "single"

// system holds the processes on a stage: one api, one scheduler and a number of workers of afterwrite. For a peer it has none.
type system struct {
	stage *world.Stage
	// sum and rows are the sum and the number of the counters in Postgres at the start of a run.
	sum, rows int64

	api       *world.Process
	workers   []*world.Process
	scheduler *world.Process
}

// on returns a system without running processes.
func on(ctx context.Context, stage *world.Stage, workers int) (*system, error) {
	sys := &system{stage: stage, workers: make([]*world.Process, workers)}
	var err error
	sys.sum, sys.rows, err = stage.Sum(ctx)
	return sys, err
}

// start starts an api, a scheduler and one worker, and returns when they are ready. settings are for the api.
func start(ctx context.Context, stage *world.Stage, settings ...string) (*system, error) {
	sys, err := on(ctx, stage, 1)
	if err != nil {
		return nil, err
	}
	if err := sys.startAPI(ctx, settings...); err != nil {
		return nil, err
	}
	return sys, sys.startFlushing(ctx)
}

func (sys *system) startAPI(ctx context.Context, settings ...string) (err error) {
	sys.api, err = sys.stage.Start(ctx, "api", settings...)
	return err
}

// startFlushing starts the workers and the scheduler.
func (sys *system) startFlushing(ctx context.Context, settings ...string) error {
	var err error
	if sys.scheduler, err = sys.stage.Start(ctx, "scheduler", settings...); err != nil {
		return err
	}
	for i := range sys.workers {
		if sys.workers[i], err = sys.stage.Start(ctx, "worker", settings...); err != nil {
			return err
		}
	}
	return nil
}

// stopFlushing stops the workers and the scheduler.
func (sys *system) stopFlushing() error {
	err := sys.scheduler.Stop()
	for _, p := range sys.workers {
		err = errors.Join(err, p.Stop())
	}
	sys.workers, sys.scheduler = nil, nil
	return err
}

// prepared returns a stage with so many clean counters of value 1. The first call writes and flushes them with the version's own
// processes. Later calls restore that state, which is faster.
func (b *bench) prepared(ctx context.Context, v world.Version, name string, rows int) (*world.Stage, error) {
	return b.preparedOn(ctx, world.StageOptions{Name: name, Version: v}, rows)
}

// preparedOn is prepared for a stage with these options.
func (b *bench) preparedOn(ctx context.Context, options world.StageOptions, rows int) (*world.Stage, error) {
	stage, err := b.stage(ctx, options)
	if err != nil {
		return nil, err
	}
	if !stage.Saved() {
		if err := writeAndFlush(ctx, stage, rows); err != nil {
			return nil, fmt.Errorf("prepare %d counters: %w", rows, err)
		}
		if err := stage.Save(ctx); err != nil {
			return nil, err
		}
	}
	return stage, stage.Restore(ctx)
}

// writeAndFlush resets a stage, and writes and flushes so many counters with value 1. It stops all processes at the end.
func writeAndFlush(ctx context.Context, stage *world.Stage, rows int) error {
	if err := stage.Reset(ctx, rows); err != nil {
		return err
	}
	sys, err := start(ctx, stage)
	if err != nil {
		return err
	}
	if err := fill(ctx, sys.api.URL, 1, rows, ""); err != nil {
		return err
	}
	if err := stage.Drained(ctx, drainPatience); err != nil {
		return err
	}
	return stage.StopAll()
}

// running starts afterwrite on singleStage. settings are for the api.
func (b *bench) running(ctx context.Context, v world.Version, settings ...string) (*system, error) {
	stage, err := b.prepared(ctx, v, singleStage, space)
	if err != nil {
		return nil, err
	}
	return start(ctx, stage, settings...)
}

// counted returns the api's counts since its start: acknowledged writes, and writes whose client closed the connection before the answer
// of Redis (outcome_unknown) or of its replicas (not_durable). Without an api, acknowledged is -1.
func (sys *system) counted(ctx context.Context) (acknowledged, unknown int64, err error) {
	if sys.api == nil {
		return -1, 0, nil
	}
	metrics, err := sys.api.Metrics(ctx)
	for _, code := range []counter.Code{counter.CodeOutcomeUnknown, counter.CodeNotDurable} {
		unknown += int64(metrics.SumOf("afterwrite_rejected_total", "reason", string(code)))
	}
	return int64(metrics.Sum("afterwrite_writes_total")), unknown, err
}

// settle compares the sum in Postgres with the counts of the api and of the load. added is the expected number of new rows.
func (b *bench) settle(ctx context.Context, name string, sys *system, count report.Count, added int64) error {
	sum, rows, err := sys.stage.Sum(ctx)
	if err != nil {
		return err
	}
	if rows != sys.rows+added {
		return fmt.Errorf("%w: there are %d rows, but there must be %d", errSum, rows, sys.rows+added)
	}
	count.Stored = sum - sys.sum
	if count.Acknowledged, count.Unknown, err = sys.counted(ctx); err != nil {
		return err
	}
	return b.check(name, count)
}
