// Command chaos runs all processes of afterwrite under load, kills them at random, and checks that no counter is wrong.
//
//	go run ./proof/chaos -duration 5m -seed 1
//
// It builds the program, and starts a private Redis, a private Postgres, and two processes of each kind. Then three things happen at
// the same time:
//
//   - clients increment counters, alone and in batches, and read them (traffic.go). A ledger records every answer, and computes the
//     bounds of later answers (ledger.go);
//   - other clients, each with a key of its own, set, increment and delete that key in sequences with an exactly known outcome
//     (owner.go, sequence.go);
//   - a schedule drawn from the seed (schedule.go) kills processes and servers, freezes workers and Postgres backends to delay
//     flushes, and deletes all of Asynq's keys. Several times a second all rows are read: no row may go back, or have a value that
//     its counter never had (verify.go).
//
// At the end all processes run again, and all keys must become clean. Then Redis, Postgres and the ledger must agree on every key
// (verify.go, compare.go). A violation is printed with the seed, the key, the expected state, and the key's last events. Then the
// exit status is 1, and the data and all logs are kept. The same seed gives the same schedule, but not the same interleavings.
//
// With -outage, the only fault is an outage of Postgres (outage.go). Then no write and no read of a warm key may fail, and no task
// may use up a retry. The report shows the time to drain.
//
// With -topology, Redis has a replica and is watched by sentinels, or is a cluster. The apis then have AFTERWRITE_DURABILITY=replica. The
// faults of Redis (topology.go) are kills, pauses, planned switches and partitions, and on a cluster resharding. Reads may come from a
// master that has been replaced, so only writes are checked for old answers.
//
// With -protocol resp, the clients speak the Redis protocol (resp.go): single commands, pipelines and transactions, some with AW.IDEM,
// which they repeat after an unknown outcome. Its answers have no versions, so under load only values are checked; the versions of the
// rows show what was lost or counted twice.
//
// With -history all counters have a history (AFTERWRITE_HISTORY). The records of each must have every version once and lead to its row,
// under load and at the end. Every acknowledged write must have its record, and no refused one may have one (recorded.go).
//
// The servers are killed as processes, without a power cut, and Redis writes its log before it answers (appendfsync always). So no
// acknowledged write may be lost.
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

	"github.com/redis/go-redis/v9/logging"

	"github.com/afterwrite/afterwrite/proof/world"
)

// settings are the flags.
type settings struct {
	duration time.Duration
	seed     uint64
	clients  int
	keys     int
	rate     int
	outage   time.Duration
	topology string
	protocol string
	history  bool
	keep     bool
}

// The protocols of the clients.
const (
	protocolHTTP = "http"
	protocolRESP = "resp"
)

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
	logging.Disable() // go-redis logs every refused connection
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, s, os.Stdout)
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "chaos: interrupted before the final checks")
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
	flags.DurationVar(&s.duration, "duration", time.Minute, "duration of the load and the faults")
	flags.Uint64Var(&s.seed, "seed", 1, "seed of the schedule of faults")
	flags.IntVar(&s.clients, "clients", 16, "number of clients that increment")
	flags.IntVar(&s.keys, "keys", 500, "number of keys that they increment")
	flags.IntVar(&s.rate, "rate", 4000, "maximum writes per second of all clients together")
	flags.DurationVar(&s.outage, "outage", 0, "stop postgres once for this long instead of random faults; it sets -duration")
	flags.StringVar(&s.topology, "topology", "", "sentinel or cluster instead of a single redis")
	flags.StringVar(&s.protocol, "protocol", protocolHTTP, "protocol of the clients: http or resp, the Redis protocol")
	flags.BoolVar(&s.history, "history", false, "give all counters a history, and check their records")
	flags.BoolVar(&s.keep, "keep", false, "keep the logs and the data even without a violation")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if s.outage > 0 {
		s.duration = outageWarmup + s.outage + outageAfter
	}
	err := s.validate(flags.NArg())
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	return s, err
}

// validate returns an error that says which settings are not permitted.
func (s settings) validate(arguments int) error {
	switch {
	case s.duration < time.Second || s.clients < 1 || s.keys < 2 || s.rate < 1 || arguments > 0:
		return errors.New("-duration must be 1s or more, -clients 1 or more, -keys 2 or more, -rate 1 or more, and there are no arguments")
	case s.protocol != protocolHTTP && s.protocol != protocolRESP:
		return errors.New("-protocol must be http or resp")
	case s.topology != "" && s.topology != world.KindSentinel && s.topology != world.KindCluster, s.topology != "" && s.outage > 0:
		return errors.New("-topology must be sentinel or cluster, and excludes -outage")
	case s.history && (s.outage > 0 || s.duration.Seconds()*float64(s.rate) > writesKept):
		return fmt.Errorf("-history excludes -outage, and permits at most %d writes: lower -duration or -rate", writesKept)
	}
	return nil
}
