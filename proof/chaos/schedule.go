package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// faultKind says what is done to a target.
type faultKind string

const (
	faultKill   faultKind = "kill"   // SIGKILL, and a start after a while
	faultFreeze faultKind = "freeze" // SIGSTOP, and SIGCONT after a while
	faultForget faultKind = "forget" // all of Asynq's keys are deleted
)

// The targets that are not processes.
const (
	targetRedis    = "redis"
	targetPostgres = "postgres"
	targetAsynq    = "asynq"
	targetBackends = "backends" // about half of the Postgres backends that serve afterwrite
)

// fault is one planned failure.
type fault struct {
	at     time.Duration // since the load began
	kind   faultKind
	target string
	lasts  time.Duration
}

// tooth is a kind of fault: how often it is drawn, and how long it lasts.
type tooth struct {
	weight   int
	kind     faultKind
	targets  []string
	from, to time.Duration
}

// teeth are all kinds of faults. They last long enough that several parts are often down together, and that a frozen worker outlasts
// the leases of drains and the flushes of others. A frozen backend makes a flush late for certain: it accepts a statement, and
// executes it when others have long flushed newer states of the same keys.
func teeth() []tooth {
	return []tooth{
		{5, faultKill, []string{"api-0", "api-1"}, 100 * time.Millisecond, 2 * time.Second},
		{4, faultKill, []string{"worker-0", "worker-1"}, 100 * time.Millisecond, 4 * time.Second},
		{2, faultKill, []string{"scheduler-0", "scheduler-1"}, 100 * time.Millisecond, 5 * time.Second},
		{3, faultKill, []string{targetPostgres}, 100 * time.Millisecond, 5 * time.Second},
		{3, faultKill, []string{targetRedis}, 50 * time.Millisecond, 2 * time.Second},
		{3, faultFreeze, []string{"worker-0", "worker-1"}, time.Second, 15 * time.Second},
		{5, faultFreeze, []string{targetBackends}, time.Second, 6 * time.Second},
		{2, faultForget, []string{targetAsynq}, 0, 0},
	}
}

const (
	pauseMin = 300 * time.Millisecond
	pauseMax = 3 * time.Second
	// rest is the pause between two faults of one target.
	rest = time.Second
)

// schedule are the faults of a run.
func (s settings) schedule() []fault {
	if s.outage > 0 {
		return newOutageSchedule(s.outage)
	}
	return newSchedule(s.seed, s.duration)
}

// newSchedule draws the faults of a run. The same seed gives the same ones.
func newSchedule(seed uint64, duration time.Duration) []fault {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same seed is to give the same schedule
	between := func(low, high time.Duration) time.Duration {
		return low + time.Duration(random.Int64N(int64(high-low)+1))
	}
	var faults []fault
	free := make(map[string]time.Duration) // when each target may be hit again
	for at := between(pauseMin, pauseMax); at < duration; at += between(pauseMin, pauseMax) {
		t := draw(random)
		f := fault{at: at, kind: t.kind, target: t.targets[random.IntN(len(t.targets))], lasts: between(t.from, t.to)}
		if at < free[f.target] {
			continue
		}
		free[f.target] = at + f.lasts + rest
		faults = append(faults, f)
	}
	return faults
}

func draw(random *rand.Rand) tooth {
	all := teeth()
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
	panic("the weights do not add up")
}

func (f fault) String() string {
	return fmt.Sprintf("%9.3fs  %-6s %-11s for %.1fs", f.at.Seconds(), f.kind, f.target, f.lasts.Seconds())
}
