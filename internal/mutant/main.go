// Command mutant breaks the lines that the design relies on, one after the other, in a copy of the tree, and requires that the
// state machine of package worker notices each.
//
//	go run ./internal/mutant                  all of them
//	go run ./internal/mutant -only reconcile  those whose names contain it
//
// It ends with status 1 when one was not noticed, or when a line is not there any more: then the list is to be mended.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// longest bounds the run of one mutant, with its compilation. Most are noticed in a second or two; the first run may have
// to compile everything.
const longest = 5 * time.Minute

func main() {
	checks := flag.Int("checks", 600, "runs of the machine before a mutant counts as not noticed")
	steps := flag.Int("steps", 50, "steps of a run, on average")
	race := flag.Bool("race", false, "with the race detector: what `make test` has compiled is used again")
	all := flag.Bool("all", false, "try every mutant, not only those that break a rule as a whole")
	only := flag.String("only", "", "try the mutants with this in their names")
	flag.Parse()
	wanted := func(name string) bool { return slices.Contains(rules(), name) }
	if *all || *only != "" {
		wanted = func(name string) bool { return strings.Contains(name, *only) }
	}
	if err := run(context.Background(), wanted, tree{checks: *checks, steps: *steps, race: *race}); err != nil {
		fmt.Fprintln(os.Stderr, "mutant:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, wanted func(name string) bool, tree tree) error {
	dir, err := os.MkdirTemp("", "afterwrite-mutant-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, part := range []string{"go.mod", "go.sum", "internal", "migrations", "scheduler", "tasks", "worker"} {
		if err := copyTree(part, filepath.Join(dir, part)); err != nil {
			return fmt.Errorf("copy the tree: %w", err)
		}
	}
	tree.dir = dir

	// The machine must be content with the tree as it is, or noticing means nothing.
	if noticed, report, err := tree.test(ctx, tree.checks/20); err != nil || noticed != "" {
		return fmt.Errorf("the machine fails without a mutant: %w\n%s", err, report)
	}
	missed := 0
	for _, m := range mutants() {
		if !wanted(m.name) {
			continue
		}
		started := time.Now()
		noticed, err := tree.try(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if noticed == "" {
			noticed = "NOT NOTICED"
			missed++
		}
		fmt.Fprintf(os.Stdout, "%-62s %5.1f s  %s\n", m.name, time.Since(started).Seconds(), noticed)
	}
	if missed > 0 {
		return fmt.Errorf("%d mutants were not noticed", missed)
	}
	return nil
}

func copyTree(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.CopyFS(to, os.DirFS(from))
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600) //nolint:gosec // into the copy
}

// tree is the copy.
type tree struct {
	dir           string
	checks, steps int
	race          bool
}

// try breaks one line, runs the machine, mends the line, and returns how the machine noticed; "" if it did not.
func (t tree) try(ctx context.Context, m mutant) (noticed string, err error) {
	path := filepath.Join(t.dir, m.file)
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(content), m.old); n != 1 {
		return "", fmt.Errorf("%s has %q %d times, instead of once", m.file, m.old, n)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(content), m.old, m.new, 1)), 0o600); err != nil { //nolint:gosec // a copy
		return "", err
	}
	noticed, report, err := t.test(ctx, t.checks)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, report)
	}
	return noticed, os.WriteFile(path, content, 0o600) //nolint:gosec // in the copy
}

var (
	// verdict is rapid's line about a failure.
	verdict = regexp.MustCompile(`\[rapid\] (failed after \d+ tests|panic after \d+ tests): (.*)`)

	// once is what rapid says of a failure that the same steps did not meet again: the servers are real, and what happens between
	// two steps takes the time that it takes. It is a failure all the same.
	once = regexp.MustCompile(`(?s)\[rapid\] flaky test, can not (reproduce) a failure.*?Original traceback \((.*?)\):\n`)
)

// test runs the machine. An error is one that has nothing to do with the rules: it does not compile, for example.
func (t tree) test(ctx context.Context, checks int) (noticed, report string, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", fmt.Sprintf("-race=%t", t.race), "-count=1", //nolint:gosec // numbers
		"-run", "^TestMachine$", "./worker",
		"-rapid.nofailfile", "-rapid.shrinktime=1ms", fmt.Sprintf("-rapid.checks=%d", checks), fmt.Sprintf("-rapid.steps=%d", t.steps))
	cmd.Dir = t.dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", "", nil
	}
	found := verdict.FindStringSubmatch(string(out))
	if found == nil {
		if found = once.FindStringSubmatch(string(out)); found != nil {
			found[1] = "failed once"
		}
	}
	if found == nil {
		return "", string(out), fmt.Errorf("the test did not get to a verdict: %w", err)
	}
	const width = 110
	what := found[2]
	if len(what) > width {
		what = what[:width] + "..."
	}
	return found[1] + ": " + what, string(out), nil
}
