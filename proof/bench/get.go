package main

import (
	"context"
	"fmt"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/world"
)

// getAfterwrite measures reads of counters that Redis has, while the worker and the scheduler have nothing to do.
func getAfterwrite(ctx context.Context, b *bench) error {
	sys, err := b.running(ctx, world.Present)
	if err != nil {
		return err
	}
	_, result, err := b.both(ctx, singles(sys.api.URL, load.Uniform, load.FormGet), nothing)
	if err != nil {
		return err // also where one was not answered with a counter
	}
	sum, rows, err := sys.stage.Sum(ctx)
	if err != nil {
		return err
	}
	written, _, err := sys.counted(ctx)
	if err != nil {
		return err
	}
	if sum != sys.sum || rows != sys.rows || written != 0 {
		return fmt.Errorf("%w: reads have changed the sum from %d to %d", errSum, sys.sum, sum)
	}
	b.note("get/afterwrite/rate", result.PerSecond)
	b.note("get/afterwrite/p99", result.P99.Seconds()*1000)
	return nil
}
