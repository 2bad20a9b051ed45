package worker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// Sequences of steps that random runs rarely reach, or that they have found. The machine checks them like random ones.
//
//nolint:paralleltest,tparallel // they share a machine, one after the other
func TestMachineSequences(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	claims := map[string]func(t rapid.TB){
		"a lost delete is not undone":                                   m.loseDelete,
		"an epoch whose last key was dropped ends":                      m.dropLastKey,
		"an entry that is gone leaves no row":                           m.loseEntryWhileRebased,
		"a slow reader hydrates nothing after a commit":                 m.hydrateAfterCommit,
		"a slow reader hydrates nothing after a retry":                  m.hydrateAfterRetry,
		"a slow reader hydrates nothing after a discard":                m.hydrateAfterDiscard,
		"a key that left its retry begins a run of its own number":      m.writeAfterRetry,
		"a key that was adopted begins a run of its own number":         m.writeAfterAdoption,
		"a merge keeps the ended runs that its row does not have":       m.lateRowAfterMerge,
		"a rebase keeps the ended runs that its row does not have":      m.lateRowAfterRebase,
		"a repair leaves an entry alone that was written meanwhile":     m.repairWritten,
		"a reconciliation leaves an entry alone that has moved on":      m.reconcileMoved,
		"an entry becomes the row that is a later state of its lineage": m.adoptLater,
		"a discard leaves an entry alone that was written meanwhile":    m.discardWritten,
		"a key that is requeued after a restart begins a run":           m.requeueAfterRestart,
		"a key that leaves its retry after a restart begins a run":      m.settleAfterRestart,
		"an epoch is not committed by a flush of one before":            m.commitNext,
		"an epoch is not committed by a flush from before a restart":    m.commitAfterRestart,
		"an eviction leaves an entry alone that was written meanwhile":  m.evictWritten,
	}
	for _, claim := range slices.Sorted(maps.Keys(claims)) {
		t.Run(claim, func(t *testing.T) {
			m.reset(t, machineBatch)
			defer m.end()
			claims[claim](t)
			m.settleDown(t)
		})
	}
}

// ops returns operations on a key, with unique amounts.
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

// add increments a counter once; blindly means without reading Postgres.
func (m *machine) add(t rapid.TB, blindly bool) { m.do(t, m.ops("a", counter.Increment), blindly) }

// carryTo advances a flight up to a call with this name.
func (m *machine) carryTo(t rapid.TB, f *flight, call string) {
	for f.at != nil && f.at.name != call {
		m.step(f, proceed)
		m.landed(t, f)
	}
	require.NotNil(t, f.at, "it is over without a call of "+call)
}

func (m *machine) drainTo(t rapid.TB, call string) *flight {
	f := m.launchDrain(t, m.cache.Shard("a"))
	m.landed(t, f)
	m.carryTo(t, f, call)
	return f
}

// readTo starts a read of a cold counter and stops it after the read of Postgres.
func (m *machine) readTo(t rapid.TB) *flight {
	f := m.launch("request", func(ctx context.Context, f *flight) {
		f.ops = m.ops("a", counter.Get)
		f.results = m.service.Do(ctx, f.ops, writepath.Options{})
	})
	m.carryTo(t, f, "hydrate")
	return f
}

// back restarts Redis from the last snapshot.
func (m *machine) back(t rapid.TB) {
	m.rollback(t, len(m.snapshots)-1)
	m.restart(t)
}

func (m *machine) evictAll(t rapid.TB) { m.finish(t, m.launchEviction(t)) }

func (m *machine) setAside(t rapid.TB) {
	ctx := context.Background()
	require.NoError(t, m.cache.SetAside(ctx, m.cache.Shard("a"), []counter.Key{"a"}, time.Hour))
	m.check(t, nil)
}

func (m *machine) bury(t rapid.TB) {
	require.NoError(t, m.cache.Bury(context.Background(), "a", cache.Dead{}))
	m.check(t, nil)
}

func (m *machine) retryNow(t rapid.TB) { m.finish(t, m.launchRetry(t, "a", 1)) }

func (m *machine) loseDelete(t rapid.TB) {
	m.do(t, m.ops("a", counter.Increment, counter.Delete), false)
	m.do(t, m.ops("b", counter.Increment), false)
	m.save(t)
	m.drain(t)
	m.do(t, m.ops("a", counter.Set), false)
	m.do(t, m.ops("b", counter.Delete), false)
	m.drain(t)
	m.back(t)
	m.drain(t)
}

func (m *machine) dropLastKey(t rapid.TB) {
	m.add(t, false)
	f := m.launchByKey(t, m.cache.Shard("a"))
	m.carryTo(t, f, "commit") // which drops the key
	m.step(f, proceed)
	require.Equal(t, "commit", f.at.name)
	m.step(f, crash)
}

func (m *machine) loseEntryWhileRebased(t rapid.TB) {
	m.add(t, true)
	f := m.drainTo(t, "hydrate")
	m.rollback(t, 0)
	m.finish(t, f)
}

func (m *machine) hydrateAfterCommit(t rapid.TB) {
	m.add(t, true)
	flush := m.drainTo(t, "mget")
	reader := m.readTo(t)
	m.finish(t, flush)
	m.evictAll(t)
	m.finish(t, reader)
}

func (m *machine) hydrateAfterRetry(t rapid.TB) {
	m.add(t, true)
	m.setAside(t)
	reader := m.readTo(t)
	m.retryNow(t)
	m.evictAll(t)
	m.finish(t, reader)
}

func (m *machine) hydrateAfterDiscard(t rapid.TB) {
	m.add(t, true)
	m.bury(t)
	reader := m.readTo(t)
	m.discardShown(t, "a", m.shown(t, "a"), proceed)
	m.finish(t, reader)
}

func (m *machine) writeAfterRetry(t rapid.TB) {
	m.add(t, false)
	m.setAside(t)
	m.retryNow(t)
	m.evictAll(t)
	m.add(t, true)
}

// It checks the number itself, because no other effect shows it.
func (m *machine) writeAfterAdoption(t rapid.TB) {
	m.add(t, false)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.back(t)
	f := m.drainTo(t, "reconcile")
	before := m.openEpoch(t)
	m.step(f, proceed)
	m.landed(t, f)
	require.Greater(t, m.openEpoch(t), before)
}

func (m *machine) openEpoch(t rapid.TB) int64 {
	text, err := m.server.Get(context.Background(), machineTag(m, "a")+":meta").Result()
	require.NoError(t, err)
	return decodeID(t, strings.Fields(text)[0])
}

// Two futures of one lineage: the row of the first lands after the second was merged with the earlier row.
func (m *machine) lateRowAfterMerge(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.back(t)
	m.add(t, false)
	m.save(t)
	m.twoFutures(t, "reconcile")
}

func (m *machine) lateRowAfterRebase(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.evictAll(t)
	m.add(t, true)
	m.save(t)
	m.twoFutures(t, "hydrate")
}

func (m *machine) twoFutures(t rapid.TB, call string) {
	lost := m.drainTo(t, call)
	m.step(lost, proceed)
	m.landed(t, lost)
	if call == "reconcile" {
		m.finish(t, lost)
		lost = m.drainTo(t, "upsert")
	}
	m.carryTo(t, lost, "upsert")
	m.step(lost, delay)
	m.finish(t, lost)
	m.back(t)
	m.add(t, true)
	f := m.drainTo(t, call)
	m.step(f, proceed)
	m.landed(t, f)
	m.step(f, crash)
	m.makeLate(t, 0)
}

// A clean entry that is older than its row is dropped, but not one that was written since.
func (m *machine) repairWritten(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.back(t)
	f := m.launchRepair(t, "a")
	m.carryTo(t, f, "repair")
	m.add(t, false)
	m.drain(t)
	m.finish(t, f)
}

func (m *machine) reconcileMoved(t rapid.TB) {
	m.add(t, false)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.back(t)
	m.add(t, false)
	f := m.drainTo(t, "reconcile")
	m.drain(t)
	m.add(t, false)
	m.finish(t, f)
}

func (m *machine) adoptLater(t rapid.TB) {
	m.add(t, false)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.back(t)
	m.drain(t)
	a := m.look(t)["a"]
	require.False(t, a.dirty())
	require.EqualValues(t, 2, a.version, "what the row has")
}

// A write after a restart does not belong to the ended lineage. Postgres has a later state of that lineage.
func (m *machine) requeueAfterRestart(t rapid.TB) {
	m.add(t, false)
	m.setAside(t)
	m.save(t)
	m.add(t, false)
	m.takeUp(t, "a")
	m.drain(t)
	m.back(t)
	m.takeUp(t, "a")
	m.add(t, false)
}

func (m *machine) settleAfterRestart(t rapid.TB) {
	m.add(t, false)
	m.setAside(t)
	f := m.launchRetry(t, "a", 1)
	m.carryTo(t, f, "settle")
	m.step(f, delay)
	m.add(t, false)
	m.save(t)
	m.add(t, false)
	m.takeUp(t, "a")
	m.drain(t)
	m.back(t)
	m.makeLate(t, 0)
	m.add(t, false)
}

func (m *machine) discardWritten(t rapid.TB) {
	m.add(t, false)
	m.bury(t)
	letter := m.shown(t, "a")
	m.add(t, false)
	m.discardShown(t, "a", letter, proceed)
}

func (m *machine) commitNext(t rapid.TB) {
	m.add(t, false)
	late := m.drainTo(t, "commit")
	m.drain(t)
	m.add(t, false)
	m.drain(t)
	m.add(t, false)
	m.drainTo(t, "mget")
	m.finish(t, late)
}

func (m *machine) commitAfterRestart(t rapid.TB) {
	m.add(t, false)
	m.refuse(t, "a", true)
	m.drainTo(t, "mget")
	m.save(t)
	f := m.drainTo(t, "commit") // the key is set aside, which Redis forgets
	m.back(t)
	m.finish(t, f)
	m.refuse(t, "a", false)
}

func (m *machine) evictWritten(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	f := m.launchEviction(t)
	m.carryTo(t, f, "evict")
	m.add(t, false)
	m.finish(t, f)
}
