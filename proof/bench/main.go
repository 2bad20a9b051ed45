// Command bench measures afterwrite beside its peers, on one machine and in one run, and prints a table of ratios.
//
//	go run ./proof/bench                        five rounds of everything: about 25 minutes on 2 cores
//	go run ./proof/bench -only single-uniform   the comparisons whose names match
//
// A round measures each system once, one after the other, and alone: the processes of the others do not run. The order changes
// with the round, since some machines get slower as they get warm. Ratios are made within a round, and their median is what
// counts, so what slows the whole machine for a while slows both sides.
//
// The previous version of afterwrite is measured in the same rounds: it is built from its commit, and each of its runs stands
// beside the present one's. Both are known by their commands, HTTP API and metrics only.
//
//   - plan.go says what is compared, with the goals, and which runs that takes; rounds.go carries the runs out.
//   - system.go starts what is measured, and checks what it has written.
//   - single.go, batch.go, million.go, cost.go, newkeys.go, coalesce.go, latency.go, memory.go, idle.go and cpu.go measure.
//   - publish.go writes the table, the plots, and everything that was measured.
//
// Every run checks itself: when everything has drained, the sum of all counters has to be what was acknowledged. Where it is
// not, the table says so instead of showing a figure, and the exit status is 1.
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
	exitInterrupted = 130 // as shells have it for SIGINT
)

func main() { os.Exit(command(os.Args[1:], os.Stdout, os.Stderr)) }

func command(args []string, stdout, stderr io.Writer) int {
	s, err := parse(args, stderr)
	if err != nil {
		return exitUsage // said by the flag set
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
	flags.IntVar(&s.rounds, "rounds", 5, "how often each system is measured")
	flags.IntVar(&s.seconds, "seconds", 3, "how long, after a second of warming up")
	only := flags.String("only", "", "a regular expression: the comparisons whose names match it")
	flags.StringVar(&s.out, "out", "proof/bench/results", "the folder for results.json and the plots")
	flags.BoolVar(&s.document, "document", false, "write the table into docs/performance.md")
	flags.BoolVar(&s.profile, "profile", false, "only take CPU profiles of api and worker, and show what costs most")
	flags.BoolVar(&s.full, "full", false, "measure 10,000,000 keys as well: minutes and some GB more")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	var err error
	if s.only, err = regexp.Compile(*only); err != nil {
		err = fmt.Errorf("-only: %w", err)
	} else if s.rounds < 1 || s.rounds > 100 || s.seconds < 1 || s.seconds > 600 || flags.NArg() > 0 {
		err = errors.New("it takes 1 to 100 rounds, 1 to 600 seconds, and no arguments")
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	return s, err
}

// duration is how long one measurement takes.
func (s settings) duration() time.Duration { return time.Duration(s.seconds) * time.Second }
