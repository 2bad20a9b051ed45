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

// takeProfiles takes CPU profiles of api and worker under uniform increments. It writes them to the folder of the results, together
// with the ten most expensive functions, and prints the latter.
func (b *bench) takeProfiles(ctx context.Context) error {
	stage, err := b.prepared(ctx, world.Present, singleStage, space)
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
	if err := os.MkdirAll(b.out, 0o755); err != nil { //nolint:gosec // it is to be read by all
		return fmt.Errorf("make %s: %w", b.out, err)
	}
	group, groupCtx := errgroup.WithContext(ctx)
	spec := singles(sys.api.URL, load.Uniform, load.FormIncrement)
	_, _, err = b.both(ctx, spec, func() error { // a profile covers the measured load, without the warm-up
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

func (b *bench) profilePath(process string) string {
	return filepath.Join(b.out, process+".pprof")
}

// takeProfile asks a process for a profile. Its log has the address.
func (b *bench) takeProfile(ctx context.Context, name string, process *world.Process) error {
	log, err := os.ReadFile(process.Log)
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	url := regexp.MustCompile(`msg="serving profiles" process=` + name + ` url=(\S+)`).FindSubmatch(log)
	if url == nil {
		return fmt.Errorf("%s does not say where it serves profiles", name)
	}
	profile, err := world.Get(ctx, fmt.Sprintf("%sprofile?seconds=%d", url[1], b.seconds))
	if err != nil {
		return fmt.Errorf("profile of %s: %w", name, err)
	}
	return b.write(filepath.Base(b.profilePath(name)), profile)
}

// topTen prints the most expensive functions, by their own time and with their callees, and writes them beside the profile.
func (b *bench) topTen(ctx context.Context, process string) error {
	var both []byte
	for _, order := range []string{"-flat", "-cum"} {
		args := []string{"tool", "pprof", "-top", "-nodecount=10", order, b.profilePath(process)}
		top := exec.CommandContext(ctx, "go", args...) //nolint:gosec // names from here
		out, err := top.Output()
		if err != nil {
			return fmt.Errorf("go tool pprof: %w", err)
		}
		both = append(both, out...)
	}
	fmt.Fprintf(b.stdout, "\n%s\n%s", process, both)
	return b.write(process+"-top.txt", both)
}
