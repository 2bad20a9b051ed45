package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// allocations runs the api's own benchmarks: how many allocations a request takes, beside one that Echo only routes.
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

// allocationsOf finds the allocations per operation of a benchmark in what `go test -bench` prints.
func allocationsOf(output, name string) (float64, error) {
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `(?:-\d+)?\s.*\s(\d+) allocs/op`).FindStringSubmatch(output)
	if line == nil {
		return 0, fmt.Errorf("%s has printed no allocs/op", name)
	}
	return strconv.ParseFloat(line[1], 64)
}
