package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/proof/world"
)

// run executes one run and prints its report. ok means that there was no violation. An error means that the run was not completed.
func run(ctx context.Context, s settings, out io.Writer) (ok bool, err error) {
	l := newLedger(s.keys, s.topology != "")
	l.recorded = s.history
	t := &traffic{ledger: l, limit: rate.NewLimiter(rate.Limit(s.rate), s.clients+batchMax), seed: s.seed, lasts: s.duration}
	owners := t.newOwners(uint64(s.clients) + 1) //nolint:gosec // it is positive
	r, err := newRig(ctx, names(l, owners), s)
	defer func() {
		r.close()
		if (ok || ctx.Err() != nil && l.findings.none()) && !s.keep && !r.suspicious() {
			err = errors.Join(err, r.world.Close())
			return
		}
		fmt.Fprintln(out, "logs and data:", r.world.Dir)
	}()
	if err != nil {
		return false, err
	}
	t.http = newHTTPClient(r.apis(), s.clients+ownedKeys)
	defer t.http.close()
	t.client = t.http
	if s.protocol == protocolRESP {
		t.client = newRESPClient(r.redisAddrs(), s.clients+ownedKeys, l.forms)
		defer t.client.close()
	}
	k := &killer{rig: r, ledger: l, done: newTally()}
	if s.outage > 0 {
		k.outage = &outage{}
	}

	l.started = time.Now()
	fmt.Fprintf(out, "chaos: seed %d, %v, %d clients on %d keys, %d clients on one key each, protocol %s, history %t; logs in %s\n",
		s.seed, s.duration, s.clients, s.keys, ownedKeys, s.protocol, s.history, r.world.Dir)
	v := &verifier{rig: r, ledger: l, client: t.client, http: t.http, owners: owners}
	t.load(ctx, s, k, v)
	took := l.since()

	result, err := finish(ctx, v)
	if err == nil && k.outage != nil {
		k.outage.judge(ctx, v)
	}
	r.panics(l.findings)
	if ctx.Err() != nil && l.findings.none() {
		return false, ctx.Err()
	}
	report{settings: s, rig: r, ledger: l, killer: k, verifier: v, took: took, verdict: result}.write(out)
	return err == nil && l.findings.none(), err
}

// names returns all keys.
func names(l *ledger, owners []*owner) []name {
	all := make([]name, 0, len(l.all())+len(owners))
	for _, a := range l.all() {
		all = append(all, a.name)
	}
	for _, o := range owners {
		all = append(all, o.name)
	}
	return all
}

// load runs the clients and the killer for s.duration, or until ctx is done. It returns when every request is answered and every
// target that was down is restarting.
func (t *traffic) load(ctx context.Context, s settings, k *killer, v *verifier) {
	during, cancel := context.WithTimeout(ctx, s.duration)
	defer cancel()
	var group sync.WaitGroup
	for i := range s.clients {
		group.Go(func() { t.newUser(uint64(i)+1).incrementing(during, ctx) }) //nolint:gosec // it is positive
	}
	for _, o := range v.owners {
		group.Go(func() { o.owning(during, ctx) })
	}
	group.Go(func() { k.run(during, ctx, s.schedule()) })
	group.Go(func() { v.watch(during) })
	group.Wait()
}

// finish waits until all processes are ready, settles the owned keys, and verifies.
func finish(ctx context.Context, v *verifier) (verdict, error) {
	if t := v.world.Topology; t != nil {
		if err := world.Heal(ctx, t, healPatience); err != nil {
			return verdict{}, fmt.Errorf("heal the topology: %w", err)
		}
	}
	if err := v.awaitReady(ctx); err != nil {
		return verdict{}, err
	}
	for _, o := range v.owners {
		o.settle(ctx)
	}
	return v.verify(ctx)
}
