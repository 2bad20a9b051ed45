package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// fate is what happens to a call.
type fate int

const (
	proceed    fate = iota
	repeat          // it is made twice, as by a client that lost the answer
	refuse          // it is not made, and fails
	loseAnswer      // it is made, and fails
	delay           // it fails, and is made later, when the machine chooses
	crash           // it is not made, and all later calls fail, too: the process has died
)

var errInjected = errors.New("the machine made this call fail")

// flight is an operation that the machine runs one call at a time, such as a drain or a request. It runs the real code, which blocks before
// each call to a server until the machine decides the fate of the call.
type flight struct {
	name    string
	arrived chan *arrival
	done    chan struct{}
	at      *arrival // the call that it is blocked before; nil: it is over

	crashed   bool
	disturbed bool                      // some call was made to fail
	err       error                     // what the drain returned
	results   []counter.Result          // what the request returned
	ops       []counter.Operation       // of the request
	absent    bool                      // the counter of the request did not exist when it began
	reading   map[counter.Key]bool      // keys of the entries that its last call has read
	read      map[counter.Key][]history // states of the entries that it has read
}

// arrival is a call that is about to be made.
type arrival struct {
	name string
	fate chan fate
	made chan struct{} // closed when the call has been made, or not
}

type flightKey struct{}

func flightOf(ctx context.Context) *flight {
	f, _ := ctx.Value(flightKey{}).(*flight)
	return f
}

// launch runs a flight up to its first call.
func (m *machine) launch(name string, run func(ctx context.Context, f *flight)) *flight {
	f := &flight{
		name: name, arrived: make(chan *arrival), done: make(chan struct{}),
		reading: make(map[counter.Key]bool), read: make(map[counter.Key][]history),
	}
	go func() {
		defer close(f.done)
		run(context.WithValue(context.Background(), flightKey{}, f), f)
	}()
	m.flights = append(m.flights, f)
	m.await(f)
	return f
}

// step advances the flight to its next call, or to its end.
func (m *machine) step(f *flight, what fate) {
	f.disturbed = f.disturbed || (what != proceed && what != repeat)
	f.crashed = f.crashed || what == crash
	f.at.decide(what)
	m.await(f)
}

func (a *arrival) decide(what fate) {
	a.fate <- what
	<-a.made
}

func (m *machine) await(f *flight) {
	timeout := time.After(10 * time.Second)
	for {
		select {
		case f.at = <-f.arrived:
			if !f.crashed {
				return
			}
			f.at.decide(crash)
		case <-f.done:
			f.at = nil
			m.flights = slices.DeleteFunc(m.flights, func(other *flight) bool { return other == f })
			return
		case <-timeout:
			panic("flight " + f.name + " hangs")
		}
	}
}

// gate blocks a flight before a call.
func (m *machine) gate(ctx context.Context, name string, call func(late bool) error) error {
	f := flightOf(ctx)
	if f == nil {
		return call(false)
	}
	a := &arrival{name: name, fate: make(chan fate), made: make(chan struct{})}
	f.arrived <- a
	what := <-a.fate
	defer close(a.made)
	switch what {
	case proceed:
		return call(false)
	case repeat:
		_ = call(true)
		return call(false)
	case loseAnswer:
		_ = call(true)
	case delay:
		m.late = append(m.late, lateCall{name: f.name + " " + name, make: func() { _ = call(true) }})
	case crash, refuse:
	}
	return errInjected
}

// lateCall is a call whose client has given up, but that a server will still carry out.
type lateCall struct {
	name string
	make func()
}

// redisGates puts a gate before each command of a flight, and before each pipeline as a whole.
type redisGates struct{ m *machine }

func (redisGates) DialHook(next redis.DialHook) redis.DialHook { return next }

func (g redisGates) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return g.pass(ctx, []redis.Cmder{cmd}, func(ctx context.Context, cmds []redis.Cmder) error { return next(ctx, cmds[0]) })
	}
}

func (g redisGates) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { return g.pass(ctx, cmds, next) }
}

func (g redisGates) pass(ctx context.Context, cmds []redis.Cmder, next redis.ProcessPipelineHook) error {
	f := flightOf(ctx)
	for _, cmd := range cmds {
		g.m.replaceScript(cmd)
	}
	name := g.m.commandName(cmds[0])
	if f == nil || slices.Contains(ungated, name) {
		return next(ctx, cmds)
	}
	return g.m.gate(ctx, name, func(late bool) error {
		made, ctx := cmds, ctx
		if late {
			made, ctx = copies(ctx, cmds)
		}
		err := next(ctx, made)
		for _, cmd := range made {
			g.m.observe(f, cmd)
		}
		return err
	})
}

// copies returns copies of the commands, for an answer that is dropped.
func copies(ctx context.Context, cmds []redis.Cmder) ([]redis.Cmder, context.Context) {
	ctx = context.WithoutCancel(ctx)
	made := make([]redis.Cmder, len(cmds))
	for i, cmd := range cmds {
		made[i] = redis.NewCmd(ctx, cmd.Args()...)
	}
	return made, ctx
}

// ungated are commands without a gate: commands of a new connection, and commands without an effect on others.
var ungated = []string{"hello", "client", "auth", "select", "time", "scan", "pexpire", "release", "type", "smismember", "hget"}

// commandName returns the name of a command, or of the script that it runs.
func (m *machine) commandName(cmd redis.Cmder) string {
	if args := cmd.Args(); len(args) > 1 {
		if script, ok := m.scripts[fmt.Sprint(args[1])]; ok {
			return script
		}
	}
	return cmd.Name()
}

// replaceScript replaces the script of a command, if there is a replacement.
func (m *machine) replaceScript(cmd redis.Cmder) {
	if args := cmd.Args(); cmd.Name() == "evalsha" {
		if hash, ok := m.instead[fmt.Sprint(args[1])]; ok {
			args[1] = hash
		}
	}
}

// observe records which entries a command has read.
func (m *machine) observe(f *flight, cmd redis.Cmder) {
	switch name := m.commandName(cmd); name {
	case "mget", "hydrate", "records":
		for _, arg := range cmd.Args() {
			if key, ok := entryOf(arg); ok {
				f.reading[key] = true
			}
		}
	}
}

// carryOn decides the fate of the next call of a flight.
func (m *machine) carryOn(t *rapid.T) {
	f := m.drawFlight(t)
	fates := []fate{
		proceed, proceed, proceed, proceed, proceed, proceed, proceed, proceed, repeat, refuse, loseAnswer, delay, crash,
	}
	what := rapid.SampledFrom(fates).Draw(t, "fate")
	t.Logf("%s: %s", f.name, f.at.name)
	m.step(f, what)
	m.landed(t, f)
}

// land advances a flight to its end.
func (m *machine) land(t *rapid.T) { m.finish(t, m.drawFlight(t)) }

// stumble advances a flight up to some call, and leaves it there or lets the call fail.
func (m *machine) stumble(t *rapid.T) {
	f := m.drawFlight(t)
	calls := []string{
		"commit", "commit", "commit", "upsert", "upsert", "hydrate", "reconcile", "aside", "settle", "requeue", "evict", "repair", "mget", "check",
		"records", "trim", "trim",
	}
	call := rapid.SampledFrom(calls).Draw(t, "call")
	for f.at != nil && f.at.name != call {
		m.step(f, proceed)
		m.landed(t, f)
	}
	what := rapid.SampledFrom([]fate{proceed, crash, delay, delay, loseAnswer, repeat}).Draw(t, "fate")
	if f.at == nil || what == proceed {
		return
	}
	m.step(f, what)
	m.landed(t, f)
}

func (m *machine) drawFlight(t *rapid.T) *flight {
	if len(m.flights) == 0 {
		t.Skip("nothing is in flight")
	}
	return m.flights[rapid.IntRange(0, len(m.flights)-1).Draw(t, "flight")]
}

// lateCall carries out a call whose client has given up.
func (m *machine) lateCall(t *rapid.T) {
	if len(m.late) == 0 {
		t.Skip("nothing is late")
	}
	m.makeLate(t, rapid.IntRange(0, len(m.late)-1).Draw(t, "call"))
}

func (m *machine) makeLate(t rapid.TB, i int) {
	call := m.late[i]
	m.late = slices.Delete(m.late, i, i+1)
	t.Logf("late: %s", call.name)
	call.make()
	m.check(t, nil)
}
