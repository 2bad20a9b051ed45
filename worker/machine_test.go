package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// maxFlights bounds what is in flight at once: more would seldom meet on so few keys.
const maxFlights = 4

// lastAmount is the last power of four of which the sum of all before it still fits into 63 bits.
const lastAmount = 30

// Whatever is done in whatever order: a row never goes back, no operation counts twice, and nothing is lost but what Redis
// lost before Postgres got it.
func TestMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	rapid.Check(t, func(t *rapid.T) {
		m.reset(t)
		defer m.end()
		t.Repeat(map[string]func(*rapid.T){
			"":            func(t *rapid.T) { m.check(t, nil) },
			"write":       m.write,
			"write again": m.write,
			"request":     m.request,
			"flush":       m.flush,
			"step":        m.carryOn,
			"step again":  m.carryOn,
			"land":        m.land,
			"drain":       m.drain,
			"retry":       m.retry,
			"redrive":     m.redrive,
			"late call":   m.lateCall,
			"evict":       m.evict,
			"snapshot":    m.snapshot,
			"restart":     m.restartOnly,
			"rollback":    m.loseTail,
			"outage":      m.toggleOutage,
			"refuse":      m.toggleRefusal,
		})
		m.settleDown(t)
	})
}

// check takes note of what a step has done, and requires that every rule holds.
func (m *machine) check(t *rapid.T, attempts []attempt) {
	if m.failure != "" {
		t.Fatal(m.failure)
	}
	seen := m.look(t)
	for _, key := range machineKeys {
		k := m.keys[key]
		var own []attempt
		for _, a := range attempts {
			if a.op.Key == key {
				own = append(own, a)
			}
		}
		if problem := k.settle(seen[key], own); problem != "" {
			t.Fatalf("%s: %s", key, problem)
		}
		if problem := k.broken(seen[key], m.lossy); problem != "" {
			t.Fatalf("%s: %s", key, problem)
		}
	}
}

func drawKey(t *rapid.T) counter.Key { return rapid.SampledFrom(machineKeys).Draw(t, "key") }

// operation draws an operation with an amount that no other has.
func (m *machine) operation(t *rapid.T) counter.Operation {
	kinds := []counter.Kind{
		counter.Increment, counter.Increment, counter.Increment, counter.Increment, counter.Set, counter.Delete, counter.Get,
	}
	op := counter.Operation{Key: drawKey(t), Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
	if op.Kind == counter.Increment || op.Kind == counter.Set {
		op.Amount = m.amount(op.Key)
		if op.Amount == 0 {
			op.Kind = counter.Get
		}
	}
	return op
}

func (m *machine) amount(key counter.Key) int64 {
	k := m.keys[key]
	if k.used > lastAmount {
		return 0
	}
	amount := int64(1) << (2 * k.used)
	k.used++
	if key == machineKeys[1] {
		return -amount
	}
	return amount
}

func (m *machine) attempts(ops []counter.Operation, results []counter.Result) []attempt {
	attempts := make([]attempt, len(ops))
	for i, op := range ops {
		m.number++
		attempts[i] = attempt{op: op, result: results[i], number: m.number}
	}
	return attempts
}

// write carries out some operations in one go.
func (m *machine) write(t *rapid.T) {
	ops := make([]counter.Operation, rapid.IntRange(1, 3).Draw(t, "operations"))
	for i := range ops {
		ops[i] = m.operation(t)
		if i > 0 && ops[i].Kind == counter.Get {
			ops = ops[:i] // the api takes no reads in a batch
			break
		}
	}
	if ops[0].Kind == counter.Get {
		ops = ops[:1]
	}
	m.do(t, ops, rapid.Bool().Draw(t, "minimal"))
}

func (m *machine) do(t *rapid.T, ops []counter.Operation, minimal bool) {
	results := m.service.Do(context.Background(), ops, writepath.Options{Minimal: minimal})
	attempts := m.attempts(ops, results)
	t.Logf("%v", attempts)
	for _, a := range attempts {
		if a.result.Err != nil && (a.op.Kind != counter.Get || !m.outage) {
			t.Fatalf("%v: %v", a.op, a.result.Err)
		}
	}
	m.check(t, attempts)
}

// request starts one operation that is slow if its key is cold.
func (m *machine) request(t *rapid.T) {
	m.room(t)
	ops := []counter.Operation{m.operation(t)}
	absent := len(m.keys[ops[0].Key].must) == 0
	f := m.launch("request", func(ctx context.Context, f *flight) {
		f.absent = absent
		f.ops = ops
		f.results = m.service.Do(ctx, ops, writepath.Options{})
	})
	m.landed(t, f)
}

func (m *machine) room(t *rapid.T) {
	if len(m.flights) >= maxFlights {
		t.Skip("enough in flight")
	}
}

// landed takes note of a flight that may have come to its end.
func (m *machine) landed(t *rapid.T, f *flight) {
	if m.failure != "" {
		t.Fatal(m.failure)
	}
	if f.at != "" {
		m.check(t, nil)
		return
	}
	if f.ops != nil {
		attempts := m.attempts(f.ops, f.results)
		for i := range attempts {
			attempts[i].slow = f.absent
		}
		m.check(t, attempts)
		return
	}
	m.check(t, nil)
	refused := store.Classify(f.err) == store.Refused || isFailure(f.err)
	if f.err != nil && !f.hindered && !errors.Is(f.err, store.ErrUnavailable) && !refused {
		t.Fatalf("%s: %v", f.name, f.err)
	}
}

// flush starts a flush of some keys of a shard.
func (m *machine) flush(t *rapid.T) {
	m.room(t)
	first := drawKey(t)
	shard := m.cache.Shard(first)
	keys := []counter.Key{first}
	for _, key := range machineKeys {
		if key != first && m.cache.Shard(key) == shard && rapid.Bool().Draw(t, "also "+string(key)) {
			keys = append(keys, key)
		}
	}
	m.landed(t, m.launch(fmt.Sprint("flush ", keys), func(ctx context.Context, f *flight) {
		f.err = m.flusher.FlushKeys(ctx, shard, keys)
	}))
}

// retry starts an attempt at a key on its own, as after a refusal.
func (m *machine) retry(t *rapid.T) {
	m.room(t)
	key := drawKey(t)
	attempt := rapid.IntRange(1, 2).Draw(t, "attempt")
	m.landed(t, m.launch("retry "+string(key), func(ctx context.Context, f *flight) {
		f.err = m.retries.attempt(ctx, m.flusher, key, attempt)
	}))
}

// drain drains all shards, undisturbed.
func (m *machine) drain(t *rapid.T) {
	for shard := range counter.Shard(machineShards) {
		m.finish(t, m.launch("drain", func(ctx context.Context, f *flight) {
			_, f.err = m.flusher.Drain(ctx, shard, "drain")
		}))
	}
}

func (m *machine) finish(t *rapid.T, f *flight) {
	for f.at != "" {
		m.step(f, proceed)
		m.landed(t, f)
	}
}

// carryOn makes the next call of something in flight, or does something worse with it.
func (m *machine) carryOn(t *rapid.T) {
	f := m.drawFlight(t)
	fates := []fate{
		proceed, proceed, proceed, proceed, proceed, proceed, proceed, proceed, repeat, refuse, loseAnswer, delay, crash,
	}
	what := rapid.SampledFrom(fates).Draw(t, "fate")
	t.Logf("%s: %s", f.name, f.at)
	m.step(f, what)
	m.landed(t, f)
}

// land carries something in flight on to its end.
func (m *machine) land(t *rapid.T) { m.finish(t, m.drawFlight(t)) }

func (m *machine) drawFlight(t *rapid.T) *flight {
	if len(m.flights) == 0 {
		t.Skip("nothing is in flight")
	}
	return m.flights[rapid.IntRange(0, len(m.flights)-1).Draw(t, "flight")]
}

// lateCall carries out a call that a client has given up.
func (m *machine) lateCall(t *rapid.T) {
	if len(m.late) == 0 {
		t.Skip("nothing is late")
	}
	i := rapid.IntRange(0, len(m.late)-1).Draw(t, "call")
	call := m.late[i]
	m.late = slices.Delete(m.late, i, i+1)
	t.Logf("late: %s", call.name)
	call.make()
	m.check(t, nil)
}

func (m *machine) redrive(t *rapid.T) {
	key := drawKey(t)
	_, err := m.cache.Redrive(context.Background(), m.cache.Shard(key), []counter.Key{key})
	require.NoError(t, err)
}

// evict removes a clean entry, as Redis does when memory is short or its TTL is over.
func (m *machine) evict(t *rapid.T) {
	key := drawKey(t)
	if o := m.look(t)[key]; !o.present || o.dirty {
		t.Skip("not clean")
	}
	require.NoError(t, m.server.Del(context.Background(), "{aw:"+m.cache.Shard(key).String()+"}:c:"+string(key)).Err())
	m.keys[key].entry = cell{}
}

func (m *machine) snapshot(t *rapid.T) { m.save(t) }

// restartOnly is a restart that loses nothing.
func (m *machine) restartOnly(t *rapid.T) { m.restart(t) }

// loseTail is a restart from a snapshot; or, with the empty one that each run begins with, perhaps a FLUSHALL.
func (m *machine) loseTail(t *rapid.T) {
	to := rapid.IntRange(0, len(m.snapshots)-1).Draw(t, "snapshot")
	m.rollback(t, to)
	if to > 0 || rapid.Bool().Draw(t, "restart") {
		m.restart(t)
	}
}

func (m *machine) toggleOutage(*rapid.T) { m.outage = !m.outage }

// toggleRefusal makes Postgres refuse a key's row, or take it again.
func (m *machine) toggleRefusal(t *rapid.T) {
	key := drawKey(t)
	if m.refusing[key] {
		m.exec(t, `DELETE FROM refused WHERE key = $1`, string(key))
	} else {
		m.exec(t, `INSERT INTO refused VALUES ($1)`, string(key))
	}
	m.refusing[key] = !m.refusing[key]
}

// settleDown lets everything come to its end, and requires that both sides have the same then.
func (m *machine) settleDown(t *rapid.T) {
	m.outage = false
	m.exec(t, `DELETE FROM refused`)
	for len(m.flights) > 0 {
		m.finish(t, m.flights[0])
	}
	for _, call := range m.late {
		call.make()
		m.check(t, nil)
	}
	m.flushAll(t)
	if m.lossy {
		// A clean entry that is older than its row is mended at its next write.
		for _, key := range machineKeys {
			m.keys[key].used = min(m.keys[key].used, lastAmount)
			m.do(t, []counter.Operation{{Key: key, Kind: counter.Increment, Amount: m.amount(key)}}, false)
		}
		m.flushAll(t)
	}
	for _, key := range machineKeys {
		k := m.keys[key]
		if k.entry.present {
			require.Equal(t, k.must.String(), k.entry.ops.String(), key)
		}
		require.Equal(t, k.must.String(), k.row.String(), key)
	}
}

// flushAll flushes until nothing is dirty, also what was put aside or is dead.
func (m *machine) flushAll(t *rapid.T) {
	const rounds = 6
	for range rounds {
		dirty := false
		for key, o := range m.look(t) {
			if !o.dirty {
				continue
			}
			dirty = true
			m.finish(t, m.launch("last flush "+string(key), func(ctx context.Context, f *flight) {
				f.err = m.flusher.flushKeys(ctx, m.cache.Shard(key), []counter.Key{key}, true)
			}))
		}
		if !dirty {
			return
		}
	}
	t.Fatalf("still dirty after %d flushes of each key: %+v", rounds, m.look(t))
}
