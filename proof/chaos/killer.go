package main

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// forgetScript deletes all of Asynq's keys in one step, as FLUSHDB would. KEYS is slow, but here Redis has only some thousand keys.
const forgetScript = `
local gone = 0
for _, key in ipairs(redis.call('KEYS', 'asynq:*')) do gone = gone + redis.call('DEL', key) end
return gone`

// killer executes the scheduled faults.
type killer struct {
	rig    *rig
	ledger *ledger
	done   *tally  // faults by kind and target
	outage *outage // nil if faults are random

	mu       sync.Mutex
	timeline []string
}

// run executes the faults until ctx is done, and returns when all killed or frozen targets run again. Faults of one target are
// sequential; faults of different targets overlap.
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
				k.execute(ctx, hard, f)
			}
		})
	}
	group.Wait()
}

func (k *killer) execute(ctx, hard context.Context, f fault) {
	if f.target == targetNodes && !k.healthy(ctx) {
		return
	}
	f.at = k.ledger.since()
	what := fmt.Sprintf("%s %s", f.kind, f.target)
	process := k.rig.process(f.target)
	hit := true
	switch {
	case f.kind == faultForget:
		k.forget(hard)
	case f.target == targetNodes:
		what += ", " + k.strike(ctx, hard, f)
	case f.target == targetBackends:
		hit = k.freezeBackends(ctx, f.lasts)
	case f.kind == faultFreeze:
		if hit = process.Signal(syscall.SIGSTOP); hit {
			process.say(fmt.Sprintf("frozen for %v", f.lasts))
			pause(ctx, f.lasts)
			process.Signal(syscall.SIGCONT)
			process.say("resumed")
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
		k.ledger.findings.add(f.target, "the restart failed: "+err.Error(), nil)
	}
	if k.outage != nil {
		k.outage.end(ctx, k.ledger, k.rig)
		k.outage.watch(ctx, k.rig)
	}
}

// freezeBackends stops about half of the idle backends for a while. A statement sent to a frozen backend runs after the freeze, even
// if the client has given up.
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
		_ = syscall.Kill(pid, syscall.SIGCONT) // fails if Postgres was killed meanwhile
	}
	return true
}

// forget checks for archived tasks, then deletes Asynq's keys. It does nothing while Redis is down.
func (k *killer) forget(ctx context.Context) {
	if n, err := k.rig.Archived(ctx); err == nil && n > 0 {
		k.ledger.findings.add(targetAsynq, fmt.Sprintf("%d tasks are archived", n), nil)
	}
	_ = k.rig.eachMaster(ctx, func(ctx context.Context, client *redis.Client) error {
		return redis.NewScript(forgetScript).Run(ctx, client, nil).Err()
	})
}

func (k *killer) note(line string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.timeline = append(k.timeline, line)
}

// lines returns the executed faults in the order in which they ended.
func (k *killer) lines() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.timeline
}
