package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// idleSettle is the time for work after the start of the processes. idleTime is the time in which commands are counted.
	idleSettle = 5 * time.Second
	idleTime   = 20 * time.Second
)

// idle measures the rate of Redis commands without requests, with one process of each kind and warm counters. It includes commands in
// scripts, which Redis counts too, as do services that bill by the command.
func idle(ctx context.Context, b *bench) error {
	sys, err := b.running(ctx, world.Current)
	if err != nil {
		return err
	}
	if _, err := sys.stage.Start(ctx, "dashboard"); err != nil {
		return err
	}
	if err := world.Sleep(ctx, idleSettle); err != nil {
		return err
	}
	before, err := commands(ctx, sys.stage)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := world.Sleep(ctx, idleTime); err != nil {
		return err
	}
	after, err := commands(ctx, sys.stage)
	if err != nil {
		return err
	}
	b.note("idle/commands", float64(after-before)/time.Since(began).Seconds())
	return nil
}

// commands returns the number of commands that Redis has executed since its start.
func commands(ctx context.Context, stage *world.Stage) (int64, error) {
	info, err := cache.ReadInfo(ctx, stage.Redis, "stats")
	return info.Commands, err
}

// allocations runs the api's Go benchmarks. It records the allocations of an increment, and how many more these are than the
// allocations of a request that Echo only routes.
func allocations(ctx context.Context, b *bench) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark(Increment|Echo)$", "-benchmem",
		"-benchtime", "20000x", "./api")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test -bench: %w\n%s", err, out)
	}
	whole, err := allocationsOf(string(out), "BenchmarkIncrement")
	if err != nil {
		return err
	}
	echo, err := allocationsOf(string(out), "BenchmarkEcho")
	if err != nil {
		return err
	}
	b.note("allocations/above", whole-echo)
	b.note("allocations/whole", whole)
	return nil
}

// allocationsOf finds the allocations per operation of a benchmark in the output of `go test -bench`.
func allocationsOf(output, name string) (float64, error) {
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `(?:-\d+)?\s.*\s(\d+) allocs/op`).FindStringSubmatch(output)
	if line == nil {
		return 0, fmt.Errorf("no allocs/op of %s in the output", name)
	}
	return strconv.ParseFloat(line[1], 64)
}
