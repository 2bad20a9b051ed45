package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// A flight is a flush, or a request, that the machine has started and carries on one call to a server at a time: the code is
// the real one, and it stands still before each call until the machine says what becomes of it.

// fate says what becomes of a call.
type fate int

const (
	proceed    fate = iota
	repeat          // it is made twice, as by a client that did not hear the answer
	refuse          // it is not made, and fails
	loseAnswer      // it is made, and fails
	delay           // it fails, and is made later, at a time of the machine's choice
	crash           // it is not made, and all that follow fail as well: the process has died
)

var errInjected = errors.New("the machine made this call fail")

type flight struct {
	name    string
	arrived chan string // the call that it stands before
	resume  chan fate
	done    chan struct{}
	at      string

	crashed  bool
	hindered bool                    // some call was made to fail
	err      error                   // what the flush returned
	results  []counter.Result        // what the request returned
	ops      []counter.Operation     // of the request
	absent   bool                    // the counter of the request did not exist when it began
	peeked   map[counter.Key]history // what the entries were when they were peeked
}

type flightKey struct{}

func flightOf(ctx context.Context) *flight {
	f, _ := ctx.Value(flightKey{}).(*flight)
	return f
}

// launch starts run up to its first call.
func (m *machine) launch(name string, run func(ctx context.Context, f *flight)) *flight {
	f := &flight{
		name: name, arrived: make(chan string), resume: make(chan fate), done: make(chan struct{}),
		peeked: make(map[counter.Key]history),
	}
	go func() {
		defer close(f.done)
		run(context.WithValue(context.Background(), flightKey{}, f), f)
	}()
	m.flights = append(m.flights, f)
	m.await(f)
	return f
}

// step carries the flight on to its next call, or its end.
func (m *machine) step(f *flight, what fate) {
	f.hindered = f.hindered || what != proceed && what != repeat
	f.resume <- what
	m.await(f)
}

func (m *machine) await(f *flight) {
	select {
	case f.at = <-f.arrived:
	case <-f.done:
		f.at = ""
		for i, other := range m.flights {
			if other == f {
				m.flights = append(m.flights[:i], m.flights[i+1:]...)
				break
			}
		}
	case <-time.After(10 * time.Second):
		panic("flight " + f.name + " hangs after " + f.at)
	}
}

// gate is where a flight stands before a call.
func (m *machine) gate(ctx context.Context, name string, call func(late bool) error) error {
	f := flightOf(ctx)
	if f == nil {
		return call(false)
	}
	if f.crashed {
		return errInjected
	}
	f.arrived <- name
	switch <-f.resume {
	case proceed:
		return call(false)
	case repeat:
		_ = call(true)
		return call(false)
	case loseAnswer:
		_ = call(true)
		return errInjected
	case delay:
		m.late = append(m.late, lateCall{name: f.name + " " + name, make: func() { _ = call(true) }})
		return errInjected
	case crash:
		f.crashed = true
	case refuse:
	}
	return errInjected
}

// lateCall is a call whose client has given up, but which a server will carry out yet.
type lateCall struct {
	name string
	make func()
}

// redisGates puts a gate before each command of a flight.
type redisGates struct{ m *machine }

func (redisGates) DialHook(next redis.DialHook) redis.DialHook { return next }

func (redisGates) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (g redisGates) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		f := flightOf(ctx)
		if f == nil {
			return next(ctx, cmd)
		}
		name := cmd.Name()
		if len(cmd.Args()) > 1 {
			if script, ok := g.m.scripts[fmt.Sprint(cmd.Args()[1])]; ok {
				name = script
			}
		}
		return g.m.gate(ctx, name, func(late bool) error {
			if late {
				return next(context.WithoutCancel(ctx), redis.NewCmd(ctx, cmd.Args()...))
			}
			err := next(ctx, cmd)
			if reply, ok := cmd.(*redis.Cmd); ok && name == "peek" && err == nil {
				g.m.notePeek(f, reply)
			}
			return err
		})
	}
}

// notePeek notes what the entries of a reply of peek.lua are.
func (m *machine) notePeek(f *flight, cmd *redis.Cmd) {
	reply, err := cmd.StringSlice()
	if err != nil {
		m.failf("peek: %v", err)
		return
	}
	const head, fields = 2, 3
	for i := head; i+fields <= len(reply); i += fields {
		key := counter.Key(reply[i])
		f.peeked[key] = m.keys[key].entry.ops
	}
}

// gatedStore is the Postgres of the machine: the real one behind gates, and away during an outage.
type gatedStore struct {
	*store.Store

	m *machine
}

func (s gatedStore) Read(ctx context.Context, keys []counter.Key) (rows map[counter.Key]counter.Row, err error) {
	gateErr := s.m.gate(ctx, "read", func(bool) error {
		if s.m.outage {
			err = store.ErrUnavailable
			return err
		}
		rows, err = s.Store.Read(context.WithoutCancel(ctx), keys)
		return err
	})
	if gateErr != nil {
		return nil, gateErr
	}
	return rows, nil
}

func (s gatedStore) Upsert(ctx context.Context, rows []counter.Row) (ahead []counter.Row, err error) {
	f := flightOf(ctx)
	flown := make(map[counter.Key]history, len(rows))
	for _, row := range rows {
		flown[row.Key] = f.peeked[row.Key]
	}
	gateErr := s.m.gate(ctx, "upsert", func(bool) error {
		if s.m.outage {
			return store.ErrUnavailable
		}
		var err error
		ahead, err = s.Store.Upsert(context.WithoutCancel(ctx), rows)
		s.m.noteRows(flown)
		return err
	})
	if gateErr != nil {
		return nil, gateErr
	}
	return ahead, nil
}

func (gatedStore) Locked(context.Context, []counter.Key) ([]counter.Key, error) { return nil, nil }
func (gatedStore) Available() bool                                              { return true }
func (gatedStore) Up() bool                                                     { return true }
