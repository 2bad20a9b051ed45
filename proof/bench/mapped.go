package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/world"
)

// mappedStage describes a stage whose counters are mapped to a column.
func mappedStage(name string) world.StageOptions {
	return world.StageOptions{Name: name + "-mapped", Mapped: true}
}

// singleMapped measures single increments of mapped counters, while one worker flushes.
func singleMapped(keys load.Keys) func(context.Context, *bench) error {
	name := string(keys) + "/mapped"
	return func(ctx context.Context, b *bench) error {
		stage, err := b.preparedOn(ctx, mappedStage(singleStage), space)
		if err != nil {
			return err
		}
		sys, err := start(ctx, stage)
		if err != nil {
			return err
		}
		warm, result, err := b.loadTwice(ctx, singles(sys.api.URL, keys, load.FormIncrement), nothing)
		if err != nil {
			return err
		}
		ended := time.Now()
		if err := stage.Drained(ctx, drainPatience); err != nil {
			return err
		}
		if err := b.settle(ctx, name, sys, cutOff(warm, result), 0); err != nil {
			return err
		}
		if err := agree(ctx, stage); err != nil {
			return err
		}
		return b.noteSingle(ctx, stage, name, result, ended)
	}
}

// mappedMillion measures the drain of a million mapped counters.
func mappedMillion(ctx context.Context, b *bench) error {
	options := mappedStage("million")
	options.Large = true
	if err := keysOn("million/mapped", options, million)(ctx, b); err != nil {
		return err
	}
	return agree(ctx, b.stages[options])
}

// agree requires that the column has what counters has.
func agree(ctx context.Context, stage *world.Stage) error {
	sum, _, err := stage.Sum(ctx)
	if err != nil {
		return err
	}
	mapped, err := stage.SumMapped(ctx)
	if err == nil && mapped != sum {
		err = fmt.Errorf("%w: counters has %d, and the mapped column %d", errSum, sum, mapped)
	}
	return err
}

// singleUpdate measures the usual design of an application: one UPDATE for each request.
func singleUpdate(keys load.Keys) func(context.Context, *bench) error {
	name := string(keys) + "/update"
	return func(ctx context.Context, b *bench) (err error) {
		stage, err := b.stage(ctx, mappedStage("update"))
		if err != nil {
			return err
		}
		if err := stage.Reset(ctx, space); err != nil {
			return err
		}
		process, err := load.StartPeer(ctx, b.world.Dir, "update", stage.RedisURL, stage.DatabaseURL)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, process.Stop()) }()
		warm, result, err := b.loadTwice(ctx, singles(process.URL, keys, load.FormIncrement), nothing)
		if err != nil {
			return err
		}
		count := cutOff(warm, result)
		count.Acknowledged = -1
		if count.Stored, err = stage.SumMapped(ctx); err != nil {
			return err
		}
		if err := b.check(name, count); err != nil {
			return err
		}
		b.note(name+"/rate", result.PerSecond)
		b.note(name+"/sustained", result.PerSecond)
		return nil
	}
}
