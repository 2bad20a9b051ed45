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
			for calls := []string{"seal", "smembers", "hmget", "upsert", "commit"}; len(calls) > 0; calls = calls[1:] {
				require.Equal(t, calls[0], f.at.name)
				m.step(f, proceed)
				m.landed(t, f)
			}
			require.Equal(t, "commit", f.at.name)
			m.step(f, crash)
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
