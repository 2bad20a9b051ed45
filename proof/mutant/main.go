// Command mutant breaks rules of the design, one after the other, in a copy of the tree, and requires that the state machine test of
// package worker fails each time. For rules that it does not cover, tests of another package must fail. It changes lines that a comment
// marks, such as "step: join".
//
//	go run ./proof/mutant                  mutants that break a whole rule
//	go run ./proof/mutant -all             all mutants
//	go run ./proof/mutant -only reconcile  mutants whose names contain the text
//
// The exit status is 1 if a mutant was not noticed, or if a marker is missing: then mark the line again, or repair mutants.go.
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

const (
	checks  = 600              // runs of the machine before a mutant counts as not noticed
	steps   = 60               // average number of steps in a run
	longest = 10 * time.Minute // time limit for one mutant; most are noticed in two seconds
)

func main() {
	all := flag.Bool("all", false, "try all mutants, not only those that break a whole rule")
	only := flag.String("only", "", "try the mutants whose names contain this text")
	flag.Parse()
	wanted := func(m mutant) bool { return m.rule }
	if *all || *only != "" {
		wanted = func(m mutant) bool { return strings.Contains(m.name, *only) }
	}
	if err := run(context.Background(), wanted); err != nil {
		fmt.Fprintln(os.Stderr, "mutant:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, wanted func(mutant) bool) error {
	dir, err := os.MkdirTemp("", "afterwrite-mutant-")
	if err != nil {
		return fmt.Errorf("create a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	tree := tree{dir: filepath.Join(dir, "tree"), scripts: filepath.Join(dir, "scripts")}
	if err := tree.make(); err != nil {
		return fmt.Errorf("copy the tree: %w", err)
	}
	// The machine must pass without a mutant. Otherwise its failures prove nothing.
	if err := tree.build(ctx); err != nil {
		return err
	}
	if noticed, report, err := tree.test(ctx, checks/20); err != nil || noticed != "" {
		return fmt.Errorf("the machine fails without a mutant: %w\n%s", err, report)
	}
	all := slices.DeleteFunc(mutants(), func(m mutant) bool { return !wanted(m) })
	for _, m := range all {
		if m.by == "" {
			continue
		}
		if noticed, report, err := tree.testPackage(ctx, m); err != nil || noticed != "" {
			return fmt.Errorf("%s fails without a mutant: %w\n%s", m.tests, err, report)
		}
	}
	return tree.tryAll(ctx, all)
}

// tryAll tries mutants, and prints what has noticed each. The error is not nil if one was not noticed.
func (t tree) tryAll(ctx context.Context, all []mutant) error {
	missed := 0
	// Mutants of scripts are first, because they need no new build.
	slices.SortStableFunc(all, func(a, b mutant) int { return cmp.Compare(a.compiled(), b.compiled()) })
	for _, m := range all {
		started := time.Now()
		noticed, err := t.try(ctx, m)
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

// compiled returns 1 if a mutant changes Go code, and 0 if it changes only scripts.
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
	return os.WriteFile(to, content, 0o600) //nolint:gosec // a file in the copy
}

// tree holds the paths of the copies.
type tree struct {
	dir     string // copy of the tree
	scripts string // second copy of the scripts
}

// make copies the tree, and the scripts a second time.
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

// onlyMachine removes the other tests of package worker, so that they are not compiled for each mutant.
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

// try applies the changes of a mutant, runs the machine, and reverts the changes. It returns the machine's failure; "" if there is none.
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
	if m.by != "" {
		noticed, report, err := t.testPackage(ctx, m)
		if err != nil {
			return "", fmt.Errorf("%w\n%s", err, report)
		}
		return noticed, nil
	}
	if compiled {
		if err := t.build(ctx); err != nil {
			return "", err
		}
	}
	var args []string
	if !compiled {
		args = append(args, "-machine.scripts="+filepath.Join(t.scripts, scripts))
	}
	noticed, report, err := t.test(ctx, checks, args...)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, report)
	}
	return noticed, nil
}

var (
	// verdict matches rapid's line about a failure.
	verdict = regexp.MustCompile(`\[rapid\] (failed after \d+ tests|panic after \d+ tests): (.*)`)

	// once matches rapid's message about a failure that the same steps did not reproduce. It counts as a failure, since the timing of
	// the real servers varies.
	once = regexp.MustCompile(`(?s)\[rapid\] flaky test, can not (reproduce) a failure.*?Original traceback \((.*?)\):\n`)
)

// build compiles the machine.
func (t tree) build(ctx context.Context) error {
	args := []string{"test", "-vet=off", "-c", "-o", t.binary(), "./worker"}
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // our own paths
	cmd.Dir = t.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the machine: %w\n%s", err, out)
	}
	return nil
}

func (t tree) binary() string { return filepath.Join(t.dir, "machine.test") }

// test runs the machine so many times. An error is a failure outside the rules: for example, a server did not start.
func (t tree) test(ctx context.Context, runs int, args ...string) (noticed, report string, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	args = append(args, "-test.run=^TestMachine(Sequences)?$", "-rapid.nofailfile", "-rapid.shrinktime=1ms",
		fmt.Sprintf("-rapid.checks=%d", runs), fmt.Sprintf("-rapid.steps=%d", steps))
	cmd := exec.CommandContext(ctx, t.binary(), args...) //nolint:gosec // the program of build
	cmd.Dir = filepath.Join(t.dir, "worker")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", "", nil
	}
	noticed = judge(string(out))
	if noticed == "" {
		return "", string(out), fmt.Errorf("the test ended without a verdict: %w", err)
	}
	return noticed, string(out), nil
}

// failed matches the first failure of a test.
var failed = regexp.MustCompile(`--- FAIL: (\S+)`)

// testPackage runs the tests of a mutant that the machine does not cover. Its results are those of test.
func (t tree) testPackage(ctx context.Context, m mutant) (noticed, report string, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-vet=off", "-count=1", "-run=^"+m.tests+"$", m.by) //nolint:gosec // our own mutants
	cmd.Dir = t.dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", "", nil
	}
	found := failed.FindSubmatch(out)
	if found == nil {
		return "", string(out), fmt.Errorf("the tests ended without a verdict: %w", err)
	}
	return "by " + string(found[1]), string(out), nil
}

// sequence matches the failure of a fixed sequence of steps.
var sequence = regexp.MustCompile(`--- FAIL: TestMachineSequences/(\S+)`)

// judge parses the machine's output. It returns after how many random runs the machine failed and why, or which fixed sequence failed,
// or "" if nothing failed.
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
