package main

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// forgetScript deletes all of Asynq's keys in one step, as an operator's FLUSHDB would. KEYS is slow, but there are only some
// thousand keys here.
const forgetScript = `
local gone = 0
for _, key in ipairs(redis.call('KEYS', 'asynq:*')) do gone = gone + redis.call('DEL', key) end
return gone`

// killer carries out a schedule.
type killer struct {
	rig    *rig
	ledger *ledger
	done   *tally  // faults by kind and target
	outage *outage // nil: faults come at random

	mu       sync.Mutex
	timeline []string
}

// run carries out the faults until ctx is done, and returns when everything that was killed or frozen runs again. Faults of one
// target happen one after the other; those of different targets overlap.
func (k *killer) run(ctx, hard context.Context, faults []fault) {
	byTarget := make(map[string][]fault)
	for _, f := range faults {
		byTarget[f.target] = append(byTarget[f.target], f)
	}
	began := time.Now()
	var group sync.WaitGroup
	for _, own := range byTarget {
		group.Go(func() {
			for _, f := range own {
				if !pause(ctx, f.at-time.Since(began)) {
					return
				}
				k.carryOut(ctx, hard, f)
			}
		})
	}
	group.Wait()
}

func (k *killer) carryOut(ctx, hard context.Context, f fault) {
	f.at = k.ledger.since()
	what := fmt.Sprintf("%s %s", f.kind, f.target)
	process := k.rig.process(f.target)
	hit := true
	switch {
	case f.kind == faultForget:
		k.forget(hard)
	case f.target == targetBackends:
		hit = k.freezeBackends(ctx, f.lasts)
	case f.kind == faultFreeze:
		if hit = process.Signal(syscall.SIGSTOP); hit {
			process.say(fmt.Sprintf("is frozen for %v", f.lasts))
			pause(ctx, f.lasts)
			process.Signal(syscall.SIGCONT)
			process.say("goes on")
		}
	case process != nil:
		hit = process.kill(f.lasts)
	default:
		k.restart(ctx, hard, f)
	}
	if hit {
		k.done.add(what)
		k.note(f.String())
	}
}

// restart kills a server and starts it again.
func (k *killer) restart(ctx, hard context.Context, f fault) {
	server := k.rig.server(f.target)
	server.Kill()
	if k.outage != nil {
		k.outage.begin(k.ledger)
	}
	pause(ctx, f.lasts)
	k.ledger.down.Store(0)
	if err := server.Start(hard); err != nil && hard.Err() == nil {
		k.ledger.findings.add(f.target, "it does not start again: "+err.Error(), nil)
	}
	if k.outage != nil {
		k.outage.end(ctx, k.ledger, k.rig)
		k.outage.watch(ctx, k.rig)
	}
}

// freezeBackends stops about half of the idle backends for a while. The next statement sent to each of them is executed only
// afterwards, whatever the client has done in the meantime.
func (k *killer) freezeBackends(ctx context.Context, lasts time.Duration) bool {
	pids, err := k.rig.backends(ctx)
	if err != nil || len(pids) == 0 {
		return false // Postgres is down
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	pause(ctx, lasts)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGCONT) // if Postgres was killed meanwhile, there is none
	}
	return true
}

// forget deletes Asynq's keys, after it has checked for archived tasks. It does nothing while Redis is down.
func (k *killer) forget(ctx context.Context) {
	if n, err := k.rig.Archived(ctx); err == nil && n > 0 {
		k.ledger.findings.add(targetAsynq, fmt.Sprintf("%d tasks were archived", n), nil)
	}
	_ = redis.NewScript(forgetScript).Run(ctx, k.rig.Redis, nil).Err()
}

func (k *killer) note(line string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.timeline = append(k.timeline, line)
}

// lines are the faults that were carried out, in the order in which they ended.
func (k *killer) lines() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.timeline
}
