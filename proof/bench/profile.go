package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/world"
)

// takeProfiles takes CPU profiles of api and worker under uniform increments. It writes the profiles and the ten most expensive
// functions to the folder of the results, and prints the functions.
func (b *bench) takeProfiles(ctx context.Context) error {
	stage, err := b.prepared(ctx, world.Current, singleStage, space)
	if err != nil {
		return err
	}
	sys, err := on(ctx, stage, 1)
	if err != nil {
		return err
	}
	const profiled = "AFTERWRITE_PPROF=true"
	if err := sys.startAPI(ctx, profiled); err != nil {
		return err
	}
	if err := sys.startFlushing(ctx, profiled); err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil { //nolint:gosec // results are public
		return fmt.Errorf("make %s: %w", b.out, err)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	spec := singles(sys.api.URL, load.Uniform, load.FormIncrement)
	_, _, err = b.loadTwice(ctx, spec, func() error { // the profile covers the load after the warm-up
		group.Go(func() error { return b.takeProfile(groupCtx, "api", sys.api) })
		group.Go(func() error { return b.takeProfile(groupCtx, "worker", sys.workers[0]) })
		return nil
	})
	if err := errors.Join(err, group.Wait()); err != nil {
		return err
	}
	for _, process := range []string{"api", "worker"} {
		if err := b.topTen(ctx, process); err != nil {
			return err
		}
	}
	return nil
}

// takeProfile gets a profile from a process, whose log has the address.
func (b *bench) takeProfile(ctx context.Context, name string, process *world.Process) error {
	log, err := os.ReadFile(process.Log)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	url := regexp.MustCompile(`msg="serving profiles" process=` + name + ` url=(\S+)`).FindSubmatch(log)
	if url == nil {
		return fmt.Errorf("no address of profiles in the log of %s", name)
	}
	profile, err := world.Get(ctx, fmt.Sprintf("%sprofile?seconds=%d", url[1], b.seconds))
	if err != nil {
		return fmt.Errorf("profile of %s: %w", name, err)
	}
	return b.write(name+".pprof", profile)
}

// topTen prints the most expensive functions, by flat and by cumulative time, and writes them beside the profile.
func (b *bench) topTen(ctx context.Context, process string) error {
	var both []byte
	for _, order := range []string{"-flat", "-cum"} {
		args := []string{"tool", "pprof", "-top", "-nodecount=10", order, filepath.Join(b.out, process+".pprof")}
		top := exec.CommandContext(ctx, "go", args...) //nolint:gosec // the names are constants
		out, err := top.Output()
		if err != nil {
			return fmt.Errorf("go tool pprof: %w", err)
		}
		both = append(both, out...)
	}
	fmt.Fprintf(b.stdout, "\n%s\n%s", process, both)
	return b.write(process+"-top.txt", both)
}
