package main

import (
	"context"
	"fmt"
	"time"
)

const (
	// ownedKeys is the number of keys that have a client of their own.
	ownedKeys = 12
	// ownedFrom numbers these keys, above all others.
	ownedFrom = 1_000_000_002
	// settlePause is the wait before a client sets its key after an indeterminate outcome. Most requests in flight are applied by
	// then; the version reveals one that is applied later.
	settlePause = 200 * time.Millisecond
	// settleTries is the maximum number of attempts to set a key at the end.
	settleTries = 50
)

// owner is the only client that writes a key.
type owner struct {
	*user

	name

	sequence *sequence
	sent     writes // with -history
	history  history
}

func (t *traffic) newOwners(first uint64) []*owner {
	owners := make([]*owner, ownedKeys)
	for i := range owners {
		n := newName(ownedFrom+i, fmt.Sprintf("own/%d", i))
		owners[i] = &owner{
			user: t.newUser(first + uint64(i)),
			name: n, sequence: newSequence(n.start),
		}
	}
	return owners
}

// owning sends requests until ctx is done. Only hard cancels a request in flight.
func (o *owner) owning(ctx, hard context.Context) {
	for o.turn(ctx, 1) {
		if !o.sequence.sure {
			if !pause(ctx, settlePause) {
				return
			}
			o.after(ctx, o.do(hard, o.set(), false))
			continue
		}
		o.after(ctx, o.do(hard, o.next(), o.minimal()))
	}
}

func (o *owner) set() step {
	return step{kind: stepSet, amount: o.random.Int64N(2_000_001) - 1_000_000}
}

// next draws an operation. It does not delete a deleted key.
func (o *owner) next() step {
	switch n := o.random.IntN(100); {
	case n < 20:
		return step{kind: stepGet}
	case n < 35:
		return o.set()
	case n < 50 && o.sequence.exists:
		return step{kind: stepDelete}
	default:
		return step{kind: stepIncrement, amount: o.amount()}
	}
}

// do sends one operation and records its answer.
func (o *owner) do(ctx context.Context, s step, minimal bool) answer {
	r, sent := o.request(minimal && s.kind != stepGet, keyed{s, o.key}), o.since()
	c := o.client
	if s.kind == stepGet && o.sequence.loose > 0 {
		c = o.http // only HTTP has versions, which reveal what was applied
	}
	a := c.do(ctx, o.api, r)
	o.history.add(event{sent: sent, answered: o.since(), what: s.String(), server: o.server(), answer: a})
	o.enter(s.kind.name(), a)
	if o.recorded && s.kind != stepGet {
		w := newWrite(s, r.number, a)
		if w.outcome == acknowledged && o.sequence.mayBeNothing(s) {
			w.outcome = indeterminate
		}
		o.sent = append(o.sent, w)
	}
	o.judge(s, a)
	return a
}

func (o *owner) judge(s step, a answer) {
	problem := ""
	if s.kind != stepGet || !o.weak {
		problem = o.sequence.apply(s, a)
	}
	if problem == "" {
		problem = unexpected(a)
	}
	if problem == "" {
		return
	}
	o.findings.add(o.key, fmt.Sprintf("%s was answered with %s", s, problem), o.history.lines())
	o.sequence.sure = false // report this violation only once
	if a.reading != nil && a.reading.version != unversioned {
		o.sequence.least, o.sequence.loose = a.reading.version, 0
	}
}

// settle sets the key at the end of the run, after all faults, until its state is known.
func (o *owner) settle(ctx context.Context) {
	for range settleTries {
		if o.sequence.sure || !pause(ctx, settlePause) {
			return
		}
		o.do(ctx, o.set(), false)
	}
}
