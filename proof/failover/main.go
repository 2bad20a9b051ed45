// Command failover measures what a failover of Redis costs: acknowledged writes that are lost or counted twice, the time without an
// answer, and the time until everything works again.
//
//	go run ./proof/failover -scenario sentinel-kill,cluster-kill -durability memory,replica -runs 3
//
// Each run starts a Redis with replicas (proof/world), a Postgres, and the processes of afterwrite. Clients increment counters by one over
// HTTP, without repeating a request, and a ledger records each answer (ledger.go). Then the scenario's fault happens (scenario.go), and
// everything is healed. When every key was written, every shard was flushed, and the dashboard shows nothing wrong (recovery.go), the load
// ends. When no key is dirty, the rows of Postgres are compared with the ledger.
//
// An increment with an unknown outcome (504, a broken connection, or 503 not_durable) may be applied or not. It widens the interval of its
// key only.
//
// It prints a line for each run and a table. The exit status is 1 if a write was counted twice, if one was lost with
// durability=replica, or if something did not work again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/proof/world"
)

// The durabilities.
const (
	durabilityMemory  = "memory"
	durabilityReplica = "replica"
)

// settings are the flags.
type settings struct {
	scenarios    []scenario
	durabilities []string
	runs         int
	seed         uint64
	keys         int
	clients      int
	rate         int
	replicas     int
	waitReplicas int
	minReplicas  int
	killed       time.Duration
	keep         bool
}

const (
	exitViolation = 1
	exitUsage     = 2
)

func main() { os.Exit(command()) }

func command() int {
	s, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		return exitUsage
	}
	logging.Disable() // go-redis logs every refused connection
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ok, err := runAll(ctx, s, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		return exitViolation
	}
	if !ok {
		return exitViolation
	}
	return 0
}

func parse(args []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("failover", flag.ContinueOnError)
	names := flags.String("scenario", "all", "comma separated: "+strings.Join(scenarioNames(), ", ")+"; or sentinel, address, cluster, all")
	durabilities := flags.String("durability", durabilityMemory+","+durabilityReplica, "comma separated: memory, replica")
	flags.IntVar(&s.runs, "runs", 1, "runs of each scenario and durability")
	flags.Uint64Var(&s.seed, "seed", 1, "seed of the moment of the fault, within a second")
	flags.IntVar(&s.keys, "keys", 240, "number of keys; all are written in turn, which limits the resolution of the times")
	flags.IntVar(&s.clients, "clients", 8, "number of clients; on a cluster, rounded up to a multiple of its masters")
	flags.IntVar(&s.rate, "rate", 3000, "maximum writes per second of all clients together")
	flags.IntVar(&s.replicas, "replicas", 1, "replicas of the master with sentinels or an address; a master of the cluster has one")
	flags.IntVar(&s.waitReplicas, "wait-replicas", 1, "AFTERWRITE_WAIT_REPLICAS")
	flags.IntVar(&s.minReplicas, "min-replicas", 1, "min-replicas-to-write with durability=replica, except on a cluster; 0 for none")
	flags.DurationVar(&s.killed, "down", 30*time.Second, "how long a killed master stays down")
	flags.BoolVar(&s.keep, "keep", false, "keep the logs and the data of every run")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if s.runs < 1 || s.keys < 16 || s.clients < 1 || s.rate < 1 || s.replicas < 1 || flags.NArg() > 0 {
		return s, errors.New("-runs, -clients, -rate and -replicas must be 1 or more, -keys 16 or more, and there are no arguments")
	}
	s.durabilities = strings.Split(*durabilities, ",")
	for _, d := range s.durabilities {
		if d != durabilityMemory && d != durabilityReplica {
			return s, fmt.Errorf("-durability must be %s or %s, not %q", durabilityMemory, durabilityReplica, d)
		}
	}
	var err error
	s.scenarios, err = chosen(strings.Split(*names, ","))
	return s, err
}

// runAll executes all runs and prints the table. ok means that there was no violation.
func runAll(ctx context.Context, s settings, out io.Writer) (ok bool, err error) {
	dir, err := local.TempDir("afterwrite-failover-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	program := filepath.Join(dir, "afterwrite")
	if err := world.Build(ctx, "", program, "github.com/afterwrite/afterwrite"); err != nil {
		return false, err
	}
	var results []result
	for _, scenario := range s.scenarios {
		for _, durability := range s.durabilities {
			for n := range s.runs {
				r := &run{settings: s, scenario: scenario, durability: durability, number: n, program: program}
				result, err := r.execute(ctx)
				if err != nil {
					return false, errors.Join(fmt.Errorf("%s, %s, run %d: %w", scenario.name, durability, n+1, err), r.close(true, out))
				}
				results = append(results, result)
				fmt.Fprintln(out, result.line())
				result.explain(out)
				if err := r.close(result.violation(), out); err != nil {
					return false, err
				}
			}
		}
	}
	writeTable(out, results)
	return !slices.ContainsFunc(results, result.violation), nil
}
