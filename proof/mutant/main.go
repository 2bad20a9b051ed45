// Command mutant breaks the steps that the design relies on, one after the other, in a copy of the tree, and requires that the
// state machine of package worker notices each. Steps are lines that a comment marks ("step: join"), see change.
//
//	go run ./proof/mutant                  all of them
//	go run ./proof/mutant -only reconcile  those whose names contain it
//
// The exit status is 1 if one was not noticed, or if a step does not exist any more: then the list has to be repaired.
package main

import (
	"cmp"
	"context"
	"errors"
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

// longest bounds the run of one mutant. Most are noticed in a second or two.
const longest = 10 * time.Minute

func main() {
	checks := flag.Int("checks", 600, "runs of the machine before a mutant counts as not noticed")
	steps := flag.Int("steps", 60, "steps of a run, on average")
	race := flag.Bool("race", false, "with the race detector: what `make test` has compiled is used again")
	all := flag.Bool("all", false, "try every mutant, not only those that break a rule as a whole")
	only := flag.String("only", "", "try the mutants with this in their names")
	flag.Parse()
	wanted := func(m mutant) bool { return m.rule }
	if *all || *only != "" {
		wanted = func(m mutant) bool { return strings.Contains(m.name, *only) }
	}
	if err := run(context.Background(), wanted, tree{checks: *checks, steps: *steps, race: *race}); err != nil {
		fmt.Fprintln(os.Stderr, "mutant:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, wanted func(mutant) bool, tree tree) error {
	dir, err := os.MkdirTemp("", "afterwrite-mutant-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	tree.dir, tree.scripts = filepath.Join(dir, "tree"), filepath.Join(dir, "scripts")
	if err := tree.make(); err != nil {
		return fmt.Errorf("copy the tree: %w", err)
	}
	// The machine must be content with the tree as it is, or noticing means nothing.
	if err := tree.build(ctx); err != nil {
		return err
	}
	if noticed, report, err := tree.test(ctx, tree.checks/20); err != nil || noticed != "" {
		return fmt.Errorf("the machine fails without a mutant: %w\n%s", err, report)
	}
	missed := 0
	// Those of scripts first: they are tried with what has just been compiled.
	all := mutants()
	slices.SortStableFunc(all, func(a, b mutant) int { return cmp.Compare(a.compiled(), b.compiled()) })
	for _, m := range all {
		if !wanted(m) {
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
		fmt.Fprintf(os.Stdout, "%-72s %5.1f s  %s\n", m.name, time.Since(started).Seconds(), noticed)
	}
	if missed > 0 {
		return fmt.Errorf("%d mutants were not noticed", missed)
	}
	return nil
}

// compiled is 1 for a mutant of code that has to be compiled, and 0 for one of scripts only.
func (m *mutant) compiled() int {
	for _, c := range m.changes {
		if filepath.Ext(c.file) != ".lua" {
			return 1
		}
	}
	return 0
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
	scripts       string // a second copy, of the scripts
	checks, steps int
	race          bool
}

// make copies the tree, and the scripts again.
func (t tree) make() error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	for _, part := range []string{"go.mod", "go.sum", "internal", "migrations", "scheduler", "tasks", "worker"} {
		if err := copyTree(part, filepath.Join(t.dir, part)); err != nil {
			return err
		}
	}
	if err := copyTree(scripts, filepath.Join(t.scripts, scripts)); err != nil {
		return err
	}
	return t.onlyMachine()
}

const scripts = "internal/cache"

// onlyMachine removes the other tests of package worker, which would have to be compiled for each mutant.
func (t tree) onlyMachine() error {
	tests, err := filepath.Glob(filepath.Join(t.dir, "worker", "*_test.go"))
	if err != nil {
		return err
	}
	for _, test := range tests {
		if !strings.HasPrefix(filepath.Base(test), "machine_") {
			err = errors.Join(err, os.Remove(test))
		}
	}
	const bundle = `package worker

import (
	"testing"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }
`
	return errors.Join(err, os.WriteFile(filepath.Join(t.dir, "worker", "main_test.go"), []byte(bundle), 0o600))
}

// try makes the changes of a mutant, runs the machine, undoes them, and returns how the machine noticed; "" if it did not.
func (t tree) try(ctx context.Context, m mutant) (noticed string, err error) {
	dir, compiled := t.scripts, m.compiled() > 0
	if compiled {
		dir = t.dir
	}
	for _, c := range m.changes {
		undo, failed := c.apply(dir)
		if failed != nil {
			return "", failed
		}
		defer func() { err = errors.Join(err, undo()) }()
	}
	if compiled {
		if err := t.build(ctx); err != nil {
			return "", err
		}
	}
	args := []string{}
	if !compiled {
		args = append(args, "-machine.scripts="+filepath.Join(t.scripts, scripts))
	}
	noticed, report, err := t.test(ctx, max(t.checks, m.checks), args...)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, report)
	}
	return noticed, nil
}

var (
	// verdict is rapid's line about a failure.
	verdict = regexp.MustCompile(`\[rapid\] (failed after \d+ tests|panic after \d+ tests): (.*)`)

	// once is rapid's message for a failure that the same steps did not reproduce: the servers are real, and timing varies. It is a
	// failure nevertheless.
	once = regexp.MustCompile(`(?s)\[rapid\] flaky test, can not (reproduce) a failure.*?Original traceback \((.*?)\):\n`)
)

// build compiles the machine.
func (t tree) build(ctx context.Context) error {
	args := []string{"test", fmt.Sprintf("-race=%t", t.race), "-vet=off", "-c", "-o", t.binary(), "./worker"}
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // names of ours
	cmd.Dir = t.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the machine: %w\n%s", err, out)
	}
	return nil
}

func (t tree) binary() string { return filepath.Join(t.dir, "machine.test") }

// test runs the machine. An error has nothing to do with the rules: for example, the servers do not start.
func (t tree) test(ctx context.Context, checks int, args ...string) (noticed, report string, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	args = append(args, "-test.run=^TestMachine(Sequences)?$", "-rapid.nofailfile", "-rapid.shrinktime=1ms",
		fmt.Sprintf("-rapid.checks=%d", checks), fmt.Sprintf("-rapid.steps=%d", t.steps))
	cmd := exec.CommandContext(ctx, t.binary(), args...) //nolint:gosec // what has just been compiled
	cmd.Dir = filepath.Join(t.dir, "worker")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", "", nil
	}
	noticed = judge(string(out))
	if noticed == "" {
		return "", string(out), fmt.Errorf("the test did not get to a verdict: %w", err)
	}
	return noticed, string(out), nil
}

// sequence is a failed sequence of steps.
var sequence = regexp.MustCompile(`--- FAIL: TestMachineSequences/(\S+)`)

// judge finds in the machine's output after how many random runs it failed and why, or else which fixed sequence failed. It is "" if
// neither did.
func judge(out string) string {
	found := verdict.FindStringSubmatch(out)
	if found == nil {
		if found = once.FindStringSubmatch(out); found != nil {
			found[1] = "failed once"
		}
	}
	if found == nil {
		if found = sequence.FindStringSubmatch(out); found == nil {
			return ""
		}
		return "by a sequence: " + strings.ReplaceAll(found[1], "_", " ")
	}
	const width = 110
	what := found[2]
	if len(what) > width {
		what = what[:width] + "..."
	}
	return found[1] + ": " + what
}
