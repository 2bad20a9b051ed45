package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// outageWarmup is the time under load before the outage, and outageAfter the time after it, while the backlog drains.
	outageWarmup = 10 * time.Second
	outageAfter  = 15 * time.Second
)

// outage is the only fault of a run with -outage: Postgres is away for some time. No write may fail, and no task may use up a retry.
type outage struct {
	mu      sync.Mutex
	began   time.Duration // since the load began
	ended   time.Duration // when Postgres was accepting connections again
	before  int64         // acknowledged writes until it began
	during  int64         // and while it lasted
	backlog int64         // dirty keys when it ended
	drained time.Duration // time until everything dirty at the end was flushed, under load; 0: it was not
}

// newOutageSchedule is the schedule of such a run.
func newOutageSchedule(lasts time.Duration) []fault {
	return []fault{{at: outageWarmup, kind: faultKill, target: targetPostgres, lasts: lasts}}
}

func (o *outage) begin(l *ledger) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.began, o.before = l.since(), l.writes(acknowledged)
	l.down.Store(int64(o.began))
}

// end records the writes and the backlog.
func (o *outage) end(ctx context.Context, l *ledger, r *rig) {
	backlog, err := r.Backlog(ctx)
	if err != nil && ctx.Err() == nil {
		l.findings.add(targetRedis, "the backlog cannot be counted: "+err.Error(), nil)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended, o.during, o.backlog = l.since(), l.writes(acknowledged)-o.before, backlog.Dirty
}

// watch waits until everything that was dirty at the end is flushed: nothing has been dirty for longer than Postgres is back.
func (o *outage) watch(ctx context.Context, r *rig) {
	back := time.Now()
	for {
		backlog, err := r.Backlog(ctx)
		if took := time.Since(back); err == nil && backlog.Oldest < took {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.drained = took
			return
		}
		if !pause(ctx, checkEvery) {
			return
		}
	}
}

// judge adds the violations that only an outage of Postgres alone can show.
func (o *outage) judge(ctx context.Context, v *verifier) {
	l := v.ledger
	if failed, unknown := l.writes(refused), l.writes(indeterminate); failed+unknown > 0 {
		l.findings.add(targetPostgres, fmt.Sprintf("%d writes failed, and %d have no known outcome, though only postgres was away",
			failed, unknown), nil)
	}
	burned, err := v.burned(ctx)
	switch {
	case err != nil:
		l.findings.add(targetAsynq, err.Error(), nil)
	case burned > 0:
		l.findings.add(targetAsynq, fmt.Sprintf("%d attempts of tasks were counted as failed", burned), nil)
	}
	if o.drained == 0 {
		l.findings.add(targetPostgres, fmt.Sprintf("%v after its return there still are keys that were dirty before", outageAfter), nil)
	}
}

// write prints the figures.
func (o *outage) write(l *ledger, line func(name, format string, args ...any)) {
	lasted := o.ended - o.began
	line("outage", "%.1f s without postgres, %d writes acknowledged in it, %.0f a second", lasted.Seconds(), o.during,
		float64(o.during)/lasted.Seconds())
	line("reads in it", "of counters written in it and answered with a value: %d answered, %d not",
		l.outcomes.sum(outcomeKey(kindWarmRead, acknowledged)),
		l.outcomes.sum(outcomeKey(kindWarmRead, refused))+l.outcomes.sum(outcomeKey(kindWarmRead, indeterminate)))
	if o.drained == 0 {
		line("backlog", "%d keys when it was back, not flushed within %v", o.backlog, outageAfter)
		return
	}
	line("backlog", "%d keys when it was back, flushed in %.2f s under load: %.0f keys a second", o.backlog,
		o.drained.Seconds(), float64(o.backlog)/o.drained.Seconds())
}
