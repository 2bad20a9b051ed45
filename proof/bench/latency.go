package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// halfPercent is the rate that has goals, in percent of the maximum rate.
	halfPercent = 50
	// lateMax is the maximum delay that the load generator itself may cause. With more, the run would measure the generator.
	lateMax = 50 * time.Millisecond
)

// latency measures the latency and the sync lag of writes at a fixed rate, a percentage of the maximum rate.
func latency(percent int) func(context.Context, *bench) error {
	return func(ctx context.Context, b *bench) error {
		most, err := b.maximum(ctx)
		if err != nil {
			return err
		}
		sys, err := b.running(ctx, world.Current)
		if err != nil {
			return err
		}
		spec := load.OpenSpec{
			URL: sys.api.URL, Space: space, Connections: connections,
			Rate: most * float64(percent) / 100, Duration: warmUp, Seed: b.seed(),
		}
		warm, err := load.Open(ctx, spec)
		if err != nil {
			return err
		}
		spec.Duration, spec.Seed = b.duration(), spec.Seed+1
		prober := &probes{api: sys.api.URL, stage: sys.stage}
		var result load.OpenResult
		group, groupCtx := errgroup.WithContext(ctx)
		group.Go(func() (err error) { result, err = load.Open(groupCtx, spec); return err })
		group.Go(func() error { return prober.run(groupCtx, spec.Duration) })
		if err := group.Wait(); err != nil {
			return err
		}
		if err := sys.stage.Drained(ctx, drainPatience); err != nil {
			return err
		}
		if failed := warm.Failed + result.Failed; failed > 0 {
			return fmt.Errorf("%d requests failed", failed)
		}
		if result.LateP99 > lateMax {
			return fmt.Errorf("the load generator was %v late, more than %v", result.LateP99, lateMax)
		}
		probed := int64(len(prober.lags))
		name := latencyName(percent)
		if err := b.settle(ctx, name, sys, report.Count{Load: warm.Sent + result.Sent + probed}, probed); err != nil {
			return err
		}
		b.noteLatency(name, spec.Rate, result, prober.lags)
		return nil
	}
}

func (b *bench) noteLatency(name string, rate float64, result load.OpenResult, lags []time.Duration) {
	b.note(name+"/rate", rate)
	for what, value := range map[string]time.Duration{
		"p50": result.P50, "p90": result.P90, "p99": result.P99, "p999": result.P999, "max": result.Max, "late": result.LateP99,
	} {
		b.note(name+"/"+what, value.Seconds()*1000)
	}
	b.note(name+"/lag", percentile(lags, 0.99).Seconds())
	b.note(name+"/lag-p50", percentile(lags, 0.5).Seconds())
}

// maximum returns the median rate of uniform increments. If there is no such run yet, maximum executes one.
func (b *bench) maximum(ctx context.Context) (float64, error) {
	if len(b.notes.figures[uniformRate]) == 0 {
		if err := singleAfterwrite(world.Current, load.Uniform)(ctx, b); err != nil {
			return 0, fmt.Errorf("measure the maximum rate: %w", err)
		}
		if err := b.stopAll(); err != nil {
			return 0, err
		}
	}
	return report.Median(b.notes.figures[uniformRate]), nil
}

// percentile returns the smallest value that is at least as large as the given part of the values, and 0 without values.
func percentile(values []time.Duration, part float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := int(float64(len(sorted))*part+0.999999) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}
