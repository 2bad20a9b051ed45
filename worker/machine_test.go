package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

const (
	// maxFlights bounds the flights at once: more would rarely interact on so few keys.
	maxFlights = 4

	// maxOperations bounds one batch: it has more operations than keys.
	maxOperations = 5

	// lastAmount is the last power of four up to which the sum of all powers, and a column's start, fits into 63 bits.
	lastAmount = 29
)

// For any steps in any order: a row never goes back, no operation counts twice, and only writes that Redis lost before their flush are
// lost. While Postgres answers, no use of a clean counter goes back behind what Postgres had when Redis was restarted.
func TestMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	rapid.Check(t, func(t *rapid.T) {
		columns := make(map[counter.Key]beginning)
		for _, key := range machineKeys[:2] {
			columns[key] = rapid.SampledFrom([]beginning{startRow, startRow, noRow, zeroRow, emptyRow}).Draw(t, "column")
		}
		m.reset(t, rapid.SampledFrom([]int{machineBatch, machineBatch, 1}).Draw(t, "batch"), columns)
		m.used = machineKeys[:rapid.IntRange(1, len(machineKeys)).Draw(t, "keys")]
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
			"stumble":     m.stumble,
			"flush part":  m.flushByKey,
			"drain":       func(t *rapid.T) { m.drain(t) },
			"retry":       m.retry,
			"requeue":     m.requeue,
			"show":        m.show,
			"discard":     m.discard,
			"late call":   m.lateCall,
			"evict":       m.evict,
			"expire":      m.expire,
			"repair":      m.repair,
			"snapshot":    m.snapshot,
			"checkpoint":  m.snapshot,
			"restart":     m.restartOnly,
			"rollback":    m.loseTail,
			"outage":      m.toggleOutage,
			"refuse":      m.toggleRefusal,
			"lock":        m.toggleLock,
		})
		m.settleDown(t)
	})
}

// check updates the model after a step, and requires that every rule holds.
func (m *machine) check(t rapid.TB, attempts []attempt) {
	for _, line := range m.rowLog {
		t.Log(line)
	}
	m.rowLog = nil
	if m.failure != "" {
		t.Fatal(m.failure)
	}
	seen := m.look(t)
	if problem := countedWrong(seen, m.cache.Shard); problem != "" {
		t.Fatal(problem)
	}
	for _, key := range machineKeys {
		k := m.keys[key]
		if o := seen[key]; o != k.shown {
			t.Logf("%s: %s", key, o.String())
			k.shown = o
		}
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
	for _, f := range m.flights {
		for key := range f.reading {
			f.read[key] = append(f.read[key], m.keys[key].entry.ops)
		}
		clear(f.reading)
	}
}

// drawKey draws one of the keys of this run: with fewer keys, more steps interact.
func (m *machine) drawKey(t *rapid.T) counter.Key { return rapid.SampledFrom(m.used).Draw(t, "key") }

// operation draws an operation with a unique amount, or one that was sent before, with its ID.
func (m *machine) operation(t *rapid.T) counter.Operation {
	const withID, again = 1, 2 // of 6
	id := rapid.IntRange(0, 5).Draw(t, "ID")
	if id == again && len(m.ids) > 0 {
		return rapid.SampledFrom(m.ids).Draw(t, "again")
	}
	kinds := []counter.Kind{
		counter.Increment, counter.Increment, counter.Increment, counter.Increment, counter.Set, counter.Delete, counter.Get,
	}
	op := counter.Operation{Key: m.drawKey(t), Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
	if op.Kind == counter.Increment || op.Kind == counter.Set {
		op.Amount = m.amount(op.Key)
		if op.Amount == 0 {
			op.Kind = counter.Get
		}
	}
	if op.Kind != counter.Get && rapid.IntRange(0, 5).Draw(t, "condition") == 0 {
		op.Condition = m.condition(t, op)
	}
	if id == withID && op.Kind != counter.Get {
		op.ID = fmt.Sprint("id", len(m.ids))
		m.ids = append(m.ids, op)
	}
	return op
}

// condition draws a condition that is met or not, as far as the machine knows the counter.
func (m *machine) condition(t *rapid.T, op counter.Operation) *counter.Condition {
	c, now := counter.Unconditional(), m.keys[op.Key].shown
	switch kind := rapid.IntRange(0, 2).Draw(t, "kind of condition"); {
	case kind == 0 && op.Kind == counter.Increment && op.Amount < 0:
		c.Min = now.value + op.Amount + rapid.Int64Range(0, 1).Draw(t, "too high")
	case kind == 0 && op.Kind == counter.Increment:
		c.Max = now.value + op.Amount - rapid.Int64Range(0, 1).Draw(t, "too low")
	case kind == 1 && now.version > 0:
		c.Version = now.version + rapid.Int64Range(0, 1).Draw(t, "too new")
		c.Exists = true
	default:
		c.Exists = true
	}
	return &c
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

// attempts pairs operations with their results, and remembers the results of operations with an ID.
func (m *machine) attempts(ops []counter.Operation, results []counter.Result) []attempt {
	attempts := make([]attempt, len(ops))
	for i, op := range ops {
		m.number++
		attempts[i] = attempt{op: op, result: results[i], number: m.number}
		if op.ID == "" {
			continue
		}
		id := string(op.Key) + op.ID
		if answer, found := m.answers[id]; found {
			attempts[i].before = &answer
		} else if results[i].Err == nil {
			m.answers[id] = results[i].Counter
		}
	}
	return attempts
}

// write carries out a batch of operations.
func (m *machine) write(t *rapid.T) {
	ops := make([]counter.Operation, rapid.IntRange(1, maxOperations).Draw(t, "operations"))
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
	m.doBy(t, m.drawService(t), ops, rapid.Bool().Draw(t, "minimal"))
}

// drawService draws the api, or rarely one without the mappings.
func (m *machine) drawService(t *rapid.T) *writepath.Service {
	if rapid.IntRange(0, 7).Draw(t, "without mappings") == 1 {
		return m.without
	}
	return m.service
}

func (m *machine) do(t rapid.TB, ops []counter.Operation, minimal bool) {
	m.doBy(t, m.service, ops, minimal)
}

func (m *machine) doBy(t rapid.TB, service *writepath.Service, ops []counter.Operation, minimal bool) {
	clean := make(map[counter.Key]bool)
	for key, o := range m.look(t) {
		clean[key] = o.present && !o.dirty()
	}
	results := service.Do(context.Background(), ops, writepath.Options{Minimal: minimal})
	attempts := m.attempts(ops, results)
	for i := range attempts {
		attempts[i].slow = service == m.without && m.keys[ops[i].Key].must.version() == 0 // it does not see the column
	}
	t.Logf("%v", attempts)
	for _, a := range attempts {
		_, unmet := a.unmet()
		needsBase := a.op.Kind == counter.Get || a.op.Condition != nil
		if a.result.Err != nil && !unmet && (!needsBase || !m.outage) {
			t.Fatalf("%v: %v", a.op, a.result.Err)
		}
	}
	m.check(t, attempts)
	for _, a := range attempts {
		compared := clean[a.op.Key] && !m.outage && !minimal && a.result.Err == nil && !a.result.Replayed
		if k := m.keys[a.op.Key]; compared && k.entry.present && !k.floor.within(k.entry.ops) {
			t.Fatalf("%v went back: redis has %v, and postgres had %v when redis was restarted", a.op, k.entry, k.floor)
		}
	}
}

// request starts one operation that is slow if its key is cold.
func (m *machine) request(t *rapid.T) {
	m.room(t)
	ops := []counter.Operation{m.operation(t)}
	service := m.drawService(t)
	absent := m.keys[ops[0].Key].must.version() == 0
	f := m.launch("request", func(ctx context.Context, f *flight) {
		f.absent = absent
		f.ops = ops
		f.results = service.Do(ctx, ops, writepath.Options{})
	})
	m.landed(t, f)
	if f.at != nil && rapid.Bool().Draw(t, "reads") {
		m.step(f, proceed)
		m.landed(t, f)
	}
}

func (m *machine) room(t *rapid.T) {
	if len(m.flights) >= maxFlights {
		t.Skip("enough in flight")
	}
}

// landed updates the model if a flight has ended.
func (m *machine) landed(t rapid.TB, f *flight) {
	if m.failure != "" {
		t.Fatal(m.failure)
	}
	if f.at != nil {
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
	if f.err != nil && !f.disturbed && !expected(f.err) {
		t.Fatalf("%s: %v", f.name, f.err)
	}
}

// expected reports that a flight may end with an error although none of its calls was made to fail.
func expected(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, errUnsettled) || store.Classify(err) == store.Refused || isFailure(err)
}

func (m *machine) drawShard(t *rapid.T) counter.Shard { return m.cache.Shard(m.drawKey(t)) }

// flush starts a drain of a shard. The leases of all others have ended, as if their workers had been suspended.
func (m *machine) flush(t *rapid.T) {
	m.room(t)
	f := m.launchDrain(t, m.drawShard(t))
	m.landed(t, f)
	if rapid.Bool().Draw(t, "seals") {
		m.step(f, proceed)
		m.landed(t, f)
	}
}

func (m *machine) launchDrain(t rapid.TB, shard counter.Shard) *flight {
	return m.drainFlight(t, shard, func(ctx context.Context, owner string) error {
		_, err := m.flusher.Drain(ctx, shard, owner, 0)
		return err
	})
}

func (m *machine) drainFlight(t rapid.TB, shard counter.Shard, drain func(ctx context.Context, owner string) error) *flight {
	require.NoError(t, m.server.Del(context.Background(), "{aw:"+shard.String()+"}:drain").Err())
	m.number++
	name := fmt.Sprint("drain ", m.number)
	return m.launch(name, func(ctx context.Context, f *flight) { f.err = drain(ctx, name) })
}

// flushByKey starts a drain that drops keys bit by bit, like the drain of a large epoch.
func (m *machine) flushByKey(t *rapid.T) {
	m.room(t)
	m.landed(t, m.launchByKey(t, m.drawShard(t)))
}

func (m *machine) launchByKey(t rapid.TB, shard counter.Shard) *flight {
	return m.drainFlight(t, shard, func(ctx context.Context, owner string) error {
		d := drain{
			Flusher: m.flusher, shard: shard, deadline: time.Now().Add(maxDrain), extended: time.Now(),
			taking: cache.Taking{Owner: owner, Lease: drainLease},
		}
		epoch, err := m.cache.Seal(ctx, shard, d.taking)
		if err != nil || (epoch.State != cache.Sealed && epoch.State != cache.Found) {
			return err
		}
		keys, _, err := m.cache.EpochKeys(ctx, &epoch, 0, len(machineKeys))
		for part := range slices.Chunk(keys, 1) {
			if err == nil {
				err = m.flushAndDrop(ctx, &d, &epoch, part)
			}
		}
		if err == nil {
			_, _, err = m.cache.Commit(ctx, &epoch)
		}
		return err
	})
}

func (m *machine) flushAndDrop(ctx context.Context, d *drain, epoch *cache.Epoch, keys []counter.Key) error {
	snapshot, err := m.cache.Read(ctx, d.shard, keys)
	if err != nil {
		return err
	}
	if err := d.flushPage(ctx, epoch, page{snapshot, keys}, 1); err != nil {
		return err
	}
	_, err = m.cache.Drop(ctx, epoch, keys)
	return err
}

// retry starts an attempt at a key on its own, as after a refusal.
func (m *machine) retry(t *rapid.T) {
	m.room(t)
	m.launchRetry(t, m.drawKey(t), rapid.IntRange(1, 2).Draw(t, "attempt"))
}

func (m *machine) launchRetry(t rapid.TB, key counter.Key, attempt int) *flight {
	f := m.launch("retry "+string(key), func(ctx context.Context, f *flight) {
		f.err = m.retries.attempt(ctx, m.flusher, key, attempt)
	})
	m.landed(t, f)
	return f
}

// drain drains all shards, undisturbed.
func (m *machine) drain(t rapid.TB) {
	for shard := range counter.Shard(machineShards) {
		m.finish(t, m.launchDrain(t, shard))
	}
}

func (m *machine) finish(t rapid.TB, f *flight) {
	for f.at != nil {
		m.step(f, proceed)
		m.landed(t, f)
	}
}

// settleDown finishes all flights, and requires that Redis and Postgres then agree.
func (m *machine) settleDown(t rapid.TB) {
	m.outage = false
	clear(m.locked)
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
		// A clean entry that is older than its row is repaired at its next write.
		for _, key := range machineKeys {
			m.keys[key].used = min(m.keys[key].used, lastAmount)
			m.do(t, []counter.Operation{{Key: key, Kind: counter.Increment, Amount: m.amount(key)}}, false)
		}
		m.flushAll(t)
	}
	for _, key := range machineKeys {
		k := m.keys[key]
		if k.entry.present {
			require.True(t, k.must.same(k.entry.ops) || k.unadopted(), "%s: redis has %v, of %v", key, k.entry, k.must)
		}
		require.True(t, k.must.same(k.row), "%s: postgres has %v, of %v", key, k.row, k.must)
	}
}

// flushAll flushes until nothing is dirty, including set-aside and dead keys.
func (m *machine) flushAll(t rapid.TB) {
	const rounds = 6
	for range rounds {
		m.requeueKeys(t, machineKeys...)
		m.drain(t)
		if m.clean(t) {
			return
		}
	}
	t.Fatalf("still dirty after %d drains: %+v", rounds, m.look(t))
}

func (m *machine) clean(t rapid.TB) bool {
	for _, o := range m.look(t) {
		if o.dirty() || o.open || o.sealed || o.retry || o.dead {
			return false
		}
	}
	return true
}
