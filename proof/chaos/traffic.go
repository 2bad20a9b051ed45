package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	batchMax = 20
	// refusedPause is the wait after a refusal. It limits the requests to an api that is down.
	refusedPause = 20 * time.Millisecond
	// zipfExponent gives the first of 500 keys about a fifth of all increments, and the last less than one per second.
	zipfExponent = 1.1
	lateDraws    = 20
)

// traffic is the state that all clients share.
type traffic struct {
	*ledger

	client client
	http   *httpClient // the same client, unless the load uses the Redis protocol
	limit  *rate.Limiter
	seed   uint64
	lasts  time.Duration // of the load
}

// user is one client of the load. It sends its requests one after the other.
type user struct {
	*traffic

	random *rand.Rand
	zipf   *rand.Zipf
	api    int // the api of the next request
}

func (t *traffic) newUser(number uint64) *user {
	random := rand.New(rand.NewPCG(t.seed, number)) //nolint:gosec // the load must be repeatable
	most := uint64(len(t.accounts) - 1)             //nolint:gosec // at least 1
	return &user{traffic: t, random: random, zipf: rand.NewZipf(random, zipfExponent, 1, most)}
}

// incrementing sends requests until ctx is done. Only hard cancels a request in flight.
func (u *user) incrementing(ctx, hard context.Context) {
	for {
		writes := u.writes()
		if !u.turn(ctx, writes) {
			return
		}
		var a answer
		switch writes {
		case 0:
			a = u.get(hard)
		case 1:
			a = u.increment(hard)
		default:
			a = u.batch(hard, writes)
		}
		u.after(ctx, a)
	}
}

// writes draws the number of writes in the next request: 0 (a read) for 20 %, 1 for 65 %, and a batch for 15 %.
func (u *user) writes() int {
	switch n := u.random.IntN(100); {
	case n < 65:
		return 1
	case n < 80:
		return 2 + u.random.IntN(batchMax-1)
	default:
		return 0
	}
}

// turn draws an api, and waits until the rate limit admits that many writes. It returns false at the end of the load.
func (u *user) turn(ctx context.Context, writes int) bool {
	u.api = u.random.IntN(copies)
	return u.limit.WaitN(ctx, writes) == nil && ctx.Err() == nil
}

func (u *user) after(ctx context.Context, a answer) {
	if a.outcome == refused && !a.missing {
		pause(ctx, refusedPause)
	}
}

// amount draws 1 to 5, or -5 to -1 in a quarter of the cases.
func (u *user) amount() int64 {
	n := 1 + u.random.Int64N(5)
	if u.random.IntN(4) == 0 {
		return -n
	}
	return n
}

// account draws one of the accounts that are in use. One draw in lateDraws is of the late accounts, so that some counters are new, or adopt
// the value of their column, at any time of the run.
func (u *user) account() *account {
	if u.random.IntN(lateDraws) == 0 {
		part := min(1, u.since().Seconds()/u.lasts.Seconds())
		if inUse := int(part * float64(len(u.late))); inUse > 0 {
			return u.late[u.random.IntN(inUse)]
		}
	}
	return u.accounts[u.zipf.Uint64()]
}

func (u *user) request(minimal bool, steps ...keyed) request {
	r := request{steps: steps, minimal: minimal, variant: u.random.IntN(variants)}
	if u.recorded && u.client == client(u.http) {
		r.number = u.requests.Add(1)
	}
	return r
}

func (u *user) minimal() bool { return u.random.IntN(8) == 0 }

func (u *user) increment(ctx context.Context) answer {
	account, by, sent := u.account(), u.amount(), u.since()
	w := account.begin(by)
	r := u.request(u.minimal(), keyed{step{stepIncrement, by}, account.key})
	a := u.client.do(ctx, u.api, r)
	u.settled(account, w, sent, r.steps[0].step, r.number, a)
	return a
}

func (u *user) batch(ctx context.Context, n int) answer {
	accounts, windows, steps := make([]*account, n), make([]window, n), make([]keyed, n)
	sent := u.since()
	for i := range n {
		accounts[i] = u.account()
		steps[i] = keyed{step{stepIncrement, u.amount()}, accounts[i].key}
		windows[i] = accounts[i].begin(steps[i].amount)
	}
	r := u.request(u.minimal(), steps...)
	a := u.client.do(ctx, u.api, r)
	for i := range n {
		one := a
		if len(a.results) == n {
			one = a.results[i]
		}
		u.settled(accounts[i], windows[i], sent, steps[i].step, r.number, one)
	}
	return a
}

// settled records an increment's answer.
func (u *user) settled(account *account, w window, sent time.Duration, s step, number uint32, a answer) {
	u.enter(kindIncrement, a)
	account.note(event{sent: sent, answered: u.since(), what: s.String(), server: u.server(), answer: a})
	if u.recorded {
		account.keep(newWrite(s, number, a))
	}
	problem := account.settle(w, s.amount, sent, a.outcome, a.reading)
	if problem == "" {
		problem = unexpected(a)
	}
	if problem != "" {
		u.findings.add(account.key, "an increment was answered with "+problem, account.events())
	}
}

func (u *user) get(ctx context.Context) answer {
	account, sent := u.account(), u.since()
	w := account.open()
	a := u.client.do(ctx, u.api, u.request(false, keyed{step{kind: stepGet}, account.key}))
	u.enter(kindRead, a)
	account.note(event{sent: sent, answered: u.since(), what: "get", server: u.server(), answer: a})
	var problem string
	if u.warm(w) {
		u.outcomes.add(outcomeKey(kindWarmRead, a.outcome))
	}
	switch {
	case a.missing:
		problem = account.read(w, reading{})
	case a.reading != nil:
		problem = account.read(w, *a.reading)
	default:
		problem = u.unread(w, a)
	}
	if problem != "" {
		u.findings.add(account.key, "a read was answered with "+problem, account.events())
	}
	return a
}

// warm reports whether Postgres is down and Redis must have the counter. A counter that was written in the outage and answered with a
// value stays in Redis until Postgres is back.
func (u *user) warm(w window) bool {
	down := time.Duration(u.down.Load())
	return down > 0 && w.valued > down
}

// unread returns the problem of a read without a result, or "".
func (u *user) unread(w window, a answer) string {
	if u.warm(w) {
		return a.reason + ", although only postgres is down and redis has the counter"
	}
	return unexpected(a)
}

func (u *user) server() string { return fmt.Sprintf("api-%d", u.api) }

// unexpected returns the reason of an answer that must not occur, or "".
func unexpected(a answer) string {
	if strings.HasPrefix(a.reason, "unexpected") || a.reason == "unreadable answer" {
		return a.reason
	}
	return ""
}

// pause waits for d. It returns false if ctx is done first.
func pause(ctx context.Context, d time.Duration) bool { return world.Sleep(ctx, d) == nil }
