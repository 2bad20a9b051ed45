package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	// outageWarmup is the time under load before the outage, outageAfter the time under load after it, in which the backlog drains.
	outageWarmup = 10 * time.Second
	outageAfter  = 15 * time.Second
)

// outage records the only fault of a run with -outage: Postgres is down for some time. No write may fail, and no task may use up a
// retry.
type outage struct {
	mu      sync.Mutex
	began   time.Duration // since the start of the load
	ended   time.Duration // the time when Postgres accepted connections again
	before  int64         // acknowledged writes before the outage
	during  int64         // acknowledged writes in the outage
	backlog int64         // dirty keys at the end of the outage
	drained time.Duration // time under load until those keys were flushed; 0 if they were not
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

// watch waits until no key has been dirty for longer than Postgres has been back. Then the backlog of the outage is flushed.
func (o *outage) watch(ctx context.Context, r *rig) {
	back := time.Now()
	for pause(ctx, checkEvery) {
		backlog, err := r.Backlog(ctx)
		if took := time.Since(back); err == nil && backlog.Oldest < took {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.drained = took
			return
		}
	}
}

// judge adds the violations that count only if Postgres alone was down.
func (o *outage) judge(ctx context.Context, v *verifier) {
	l := v.ledger
	if failed, unknown := l.writes(refused), l.writes(indeterminate); failed+unknown > 0 {
		l.findings.add(targetPostgres, fmt.Sprintf("%d writes failed and %d have an unknown outcome, although only postgres was down",
			failed, unknown), nil)
	}
	burned, err := v.burned(ctx)
	switch {
	case err != nil:
		l.findings.add(targetAsynq, err.Error(), nil)
	case burned > 0:
		l.findings.add(targetAsynq, fmt.Sprintf("asynq counted %d failed attempts", burned), nil)
	}
	if o.drained == 0 {
		l.findings.add(targetPostgres, fmt.Sprintf("%v after its return, keys that were dirty before it are still dirty", outageAfter), nil)
	}
}

// write prints the figures.
func (o *outage) write(l *ledger, line func(name, format string, args ...any)) {
	lasted := o.ended - o.began
	line("outage", "%.1f s without postgres, %d writes acknowledged, %.0f/s", lasted.Seconds(), o.during,
		float64(o.during)/lasted.Seconds())
	line("warm reads", "of counters that were written in the outage and answered with a value: %d answered, %d failed",
		l.outcomes.sum(outcomeKey(kindWarmRead, acknowledged)),
		l.outcomes.sum(outcomeKey(kindWarmRead, refused))+l.outcomes.sum(outcomeKey(kindWarmRead, indeterminate)))
	if o.drained == 0 {
		line("backlog", "%d keys when postgres was back, not flushed within %v", o.backlog, outageAfter)
		return
	}
	line("backlog", "%d keys when postgres was back, flushed in %.2f s under load, %.0f keys/s", o.backlog,
		o.drained.Seconds(), float64(o.backlog)/o.drained.Seconds())
}
