// Command bench measures afterwrite and its peers on one machine in one run, and prints a table of ratios.
//
//	go run ./proof/bench                        five rounds of all comparisons: about 25 minutes on 2 cores
//	go run ./proof/bench -only single-uniform   only comparisons whose IDs match
//
// A round measures the systems one after the other; only one system runs at a time. Each round has another order, because some machines
// slow down when they get warm. Each round gives a ratio, and the result is the median of the ratios, since a slow phase of the machine
// slows both sides.
//
// The previous version of afterwrite is built from its commit, and measured in the same rounds. The benchmark uses only commands, HTTP
// routes and metrics that both versions have.
//
//   - plan.go lists the comparisons with their goals, and the runs that measure them. rounds.go executes the runs.
//   - system.go starts the processes of a run, and checks the result.
//   - single.go, batch.go, million.go, cost.go, newkeys.go, coalesce.go, latency.go, memory.go, history.go, idle.go
//     and cpu.go measure.
//   - publish.go writes the table, the plots, and all figures.
//
// Every run checks itself: after the drain, the sum of all counters must equal the acknowledged sum. If it does not, the table shows the
// problem instead of a figure, and the exit status is 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	rounds   int
	seconds  int
	only     *regexp.Regexp
	out      string
	document bool
	profile  bool
	full     bool
}

const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // what shells return after SIGINT
)

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

func command(args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stderr)
	if err != nil {
		return exitUsage // parse has printed the error
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err = measure(ctx, s, stdout)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "bench: interrupted")
		return exitInterrupted
	case err != nil:
		fmt.Fprintln(stderr, "bench:", err)
		return exitFailure
	}
	return 0
}

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&s.rounds, "rounds", 5, "number of rounds")
	flags.IntVar(&s.seconds, "seconds", 3, "duration of a measurement in seconds, after a second of warm-up")
	only := flags.String("only", "", "regular expression: run only comparisons whose IDs match")
	flags.StringVar(&s.out, "out", "proof/bench/results", "folder for results.json and the plots")
	flags.BoolVar(&s.document, "document", false, "write the table into docs/performance.md")
	flags.BoolVar(&s.profile, "profile", false, "only take CPU profiles of api and worker, and print the most expensive functions")
	flags.BoolVar(&s.full, "full", false, "measure 10,000,000 keys as well: minutes and some GB more")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		err = fmt.Errorf("-only: %w", err)
	} else if s.rounds < 1 || s.rounds > 100 || s.seconds < 1 || s.seconds > 600 || flags.NArg() > 0 {
		err = errors.New("-rounds must be 1 to 100, -seconds 1 to 600, and there are no arguments")
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	return s, err
}

// duration is the duration of one measurement.
func (s settings) duration() time.Duration { return time.Duration(s.seconds) * time.Second }
