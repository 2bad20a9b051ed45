package worker

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// What the machine has found, step by step.
func TestMachineFound(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	for _, found := range []struct {
		claim string
		steps func(t rapid.TB)
	}{
		{"an entry that lost its tail is deleted if and only if its row is", func(t rapid.TB) {
			m.do(t, m.ops("a", counter.Increment, counter.Delete), false)
			m.do(t, m.ops("b", counter.Increment), false)
			m.save(t)
			m.drain(t)
			m.do(t, m.ops("a", counter.Set), false)
			m.do(t, m.ops("b", counter.Delete), false)
			m.drain(t)
			m.rollback(t, len(m.snapshots)-1)
			m.restart(t)
			m.drain(t)
		}},
		{"an epoch whose last key was dropped by a worker that died is over", func(t rapid.TB) {
			m.do(t, m.ops("a", counter.Increment), false)
			f := m.launchByKey(t, m.cache.Shard("a"))
			m.carryTo(t, f, "commit") // which drops the key
			m.step(f, proceed)
			require.Equal(t, "commit", f.at.name)
			m.step(f, crash)
		}},
		{"an entry that is gone when its base has been read leaves no row", func(t rapid.TB) {
			m.do(t, m.ops("a", counter.Increment), true)
			f := m.launchDrain(t, m.cache.Shard("a"))
			m.carryTo(t, f, "hydrate")
			m.rollback(t, 0)
			m.finish(t, f)
		}},
	} {
		t.Run(found.claim, func(t *testing.T) {
			m.reset(t, machineBatch)
			defer m.end()
			found.steps(t)
			m.settleDown(t)
		})
	}
}

// ops are operations on a key, with amounts that no others have.
func (m *machine) ops(key counter.Key, kinds ...counter.Kind) []counter.Operation {
	ops := make([]counter.Operation, len(kinds))
	for i, kind := range kinds {
		ops[i] = counter.Operation{Key: key, Kind: kind}
		if kind == counter.Increment || kind == counter.Set {
			ops[i].Amount = m.amount(key)
		}
	}
	return ops
}

// carryTo carries a flight on until it stands before a call with this name.
func (m *machine) carryTo(t rapid.TB, f *flight, call string) {
	for f.at != nil && f.at.name != call {
		m.step(f, proceed)
		m.landed(t, f)
	}
	require.NotNil(t, f.at, "it is over without a call of "+call)
}
