// Command chaos runs all processes of afterwrite under load, kills them at random, and checks that no counter is wrong.
//
//	go run ./proof/chaos -duration 5m -seed 1
//
// It builds the program, starts a private Redis and a private Postgres and, beside them, two of each process. Then three
// things happen at once until the time is over:
//
//   - clients increment counters, alone and in batches, and read them (traffic.go). A ledger records every answer (ledger.go), and
//     gives the bounds of the value and version of each further answer;
//   - other clients, each with a key of its own, set, increment and delete it in sequences with an exactly known outcome
//     (sequence.go);
//   - a schedule made from the seed (schedule.go) kills processes and servers, freezes workers and Postgres backends so that
//     flushes come late, and deletes all of Asynq's keys. The rows are read several times a second: none may go back, or have a
//     value that its counter never had (verify.go).
//
// At the end everything runs again and has to become clean. Then Redis, Postgres and the ledger must agree on every key (verify.go,
// compare.go). A violation is printed with the seed, the key, what was expected, and the last events of the key; the exit status is
// 1, and the data and all logs are kept. The same seed gives the same schedule, but not the same interleavings.
//
// With -outage there is only one fault: Postgres is away for that long (outage.go). Then no write may fail, no read of a warm key may
// fail, and no task may use up a retry. The report has the time to drain.
//
// The servers are killed as processes, not with their machine, and Redis writes its log before it answers
// (appendfsync always): so no acknowledged write may be lost.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	duration time.Duration
	seed     uint64
	clients  int
	keys     int
	rate     int
	outage   time.Duration
	keep     bool
}

const (
	exitViolation   = 1
	exitUsage       = 2
	exitInterrupted = 130 // what shells return after SIGINT
)

func main() { os.Exit(command()) }

func command() int {
	s, err := parse(os.Args[1:])
	if err != nil {
		return exitUsage // the flag set has printed why
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, s, os.Stdout)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "chaos: interrupted, so nothing was checked at the end")
		return exitInterrupted
	case err != nil:
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return exitViolation
	case !ok:
		return exitViolation
	}
	return 0
}

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.DurationVar(&s.duration, "duration", time.Minute, "how long the load and the faults last")
	flags.Uint64Var(&s.seed, "seed", 1, "what the schedule of faults is made from")
	flags.IntVar(&s.clients, "clients", 16, "clients that increment")
	flags.IntVar(&s.keys, "keys", 500, "keys that they increment")
	flags.IntVar(&s.rate, "rate", 4000, "the most writes a second, of all clients together")
	flags.DurationVar(&s.outage, "outage", 0, "no random faults: postgres is away once for this long, and -duration follows from it")
	flags.BoolVar(&s.keep, "keep", false, "keep the logs and the data also when nothing is wrong")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if s.outage > 0 {
		s.duration = outageWarmup + s.outage + outageAfter
	}
	if s.duration < time.Second || s.clients < 1 || s.keys < 2 || s.rate < 1 || flags.NArg() > 0 {
		err := errors.New("it takes a duration of 1s or more, 1 client or more, 2 keys or more, and a rate of 1 or more")
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return s, err
	}
	return s, nil
}
