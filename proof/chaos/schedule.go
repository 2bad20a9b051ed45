package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// faultKind is the kind of a fault.
type faultKind string

const (
	faultKill   faultKind = "kill"   // SIGKILL, and later a restart
	faultFreeze faultKind = "freeze" // SIGSTOP, and later SIGCONT
	faultForget faultKind = "forget" // deletion of all of Asynq's keys

	// Those of a topology; see topology.go.
	faultSwitch  faultKind = "switch"  // a planned failover
	faultCut     faultKind = "cut"     // a master cannot reach the other nodes for some time
	faultReshard faultKind = "reshard" // slots move to another master
)

// The targets that are not processes.
const (
	targetRedis    = "redis"
	targetNodes    = "nodes" // of the topology, one at a time
	targetPostgres = "postgres"
	targetAsynq    = "asynq"
	targetBackends = "backends" // about half of the Postgres backends that serve afterwrite
)

// fault is one planned failure.
type fault struct {
	at     time.Duration // since the start of the load
	kind   faultKind
	target string
	lasts  time.Duration
	pick   int // chooses the node of a topology
}

// faultType is a type of fault with the weight of its draws and the range of its duration.
type faultType struct {
	weight   int
	kind     faultKind
	targets  []string
	from, to time.Duration
}

// faultTypes returns all types of faults. Their durations are long enough for several targets to be down at the same time, and for a
// frozen worker to outlast its lease and the flushes of others. A frozen backend always delays a flush: it executes a statement after
// others have flushed newer states of the same keys.
func faultTypes(topology string) []faultType {
	redis := []faultType{{3, faultKill, []string{targetRedis}, 50 * time.Millisecond, 2 * time.Second}}
	if topology != "" {
		redis = nodeFaults(topology)
	}
	return slices.Concat([]faultType{
		{5, faultKill, []string{"api-0", "api-1"}, 100 * time.Millisecond, 2 * time.Second},
		{4, faultKill, []string{"worker-0", "worker-1"}, 100 * time.Millisecond, 4 * time.Second},
		{2, faultKill, []string{"scheduler-0", "scheduler-1"}, 100 * time.Millisecond, 5 * time.Second},
		{3, faultKill, []string{targetPostgres}, 100 * time.Millisecond, 5 * time.Second},
	}, redis, []faultType{
		{3, faultFreeze, []string{"worker-0", "worker-1"}, time.Second, 15 * time.Second},
		{5, faultFreeze, []string{targetBackends}, time.Second, 6 * time.Second},
		{2, faultForget, []string{targetAsynq}, 0, 0},
	})
}

const (
	pauseMin = 300 * time.Millisecond
	pauseMax = 3 * time.Second
	// rest is the minimum pause between two faults of one target.
	rest = time.Second
)

// schedule returns the faults of a run.
func (s settings) schedule() []fault {
	if s.outage > 0 {
		return []fault{{at: outageWarmup, kind: faultKill, target: targetPostgres, lasts: s.outage}}
	}
	return newSchedule(s.seed, s.duration, s.topology)
}

// newSchedule draws random faults. The same seed gives the same faults.
func newSchedule(seed uint64, duration time.Duration, topology string) []fault {
	types := faultTypes(topology)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a schedule must be repeatable
	between := func(low, high time.Duration) time.Duration {
		return low + time.Duration(random.Int64N(int64(high-low)+1))
	}
	var faults []fault
	free := make(map[string]time.Duration) // the earliest time of each target's next fault
	for at := between(pauseMin, pauseMax); at < duration; at += between(pauseMin, pauseMax) {
		t := draw(random, types)
		f := fault{at: at, kind: t.kind, target: t.targets[random.IntN(len(t.targets))], lasts: between(t.from, t.to)}
		if at < free[f.target] {
			continue
		}
		if f.target == targetNodes {
			f.pick = random.IntN(1 << 16)
		}
		free[f.target] = at + f.lasts + rest
		faults = append(faults, f)
	}
	return faults
}

func draw(random *rand.Rand, all []faultType) faultType {
	sum := 0
	for _, t := range all {
		sum += t.weight
	}
	n := random.IntN(sum)
	for _, t := range all {
		if n < t.weight {
			return t
		}
		n -= t.weight
	}
	panic("unreachable: n is less than the sum of the weights")
}

func (f fault) String() string {
	return fmt.Sprintf("%9.3fs  %-6s %-11s for %.1fs", f.at.Seconds(), f.kind, f.target, f.lasts.Seconds())
}
