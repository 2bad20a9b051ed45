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

// Sequences of steps that random runs rarely reach, or in which they have found bugs. The machine checks them like random ones.
//
//nolint:paralleltest,tparallel // they share a machine, one after the other
func TestMachineSequences(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	claims := map[string]func(t rapid.TB){
		"a lost delete is not undone":                                         m.loseDelete,
		"an epoch is committed after its last key was dropped":                m.dropLastKey,
		"an entry that is lost during its rebase is not written to Postgres":  m.loseEntryWhileRebased,
		"a slow reader hydrates nothing after a commit":                       m.hydrateAfterCommit,
		"a slow reader hydrates nothing after a retry":                        m.hydrateAfterRetry,
		"a slow reader hydrates nothing after a discard":                      m.hydrateAfterDiscard,
		"a key that left its retry starts a new lineage":                      m.writeAfterRetry,
		"an adopted key starts a new lineage":                                 m.adoptionOpensEpoch,
		"a merge keeps the ended lineages that its row does not have":         m.lateRowAfterMerge,
		"a rebase keeps the ended lineages that its row does not have":        m.lateRowAfterRebase,
		"a repair does not touch an entry that was written meanwhile":         m.repairWritten,
		"a reconciliation does not touch an entry that was written meanwhile": m.reconcileMoved,
		"an entry becomes the row that is a later state of its lineage":       m.adoptLater,
		"a discard does not touch an entry that was written meanwhile":        m.discardWritten,
		"a key requeued after a restart starts a new lineage":                 m.requeueAfterRestart,
		"a key that leaves its retry after a restart starts a new lineage":    m.settleAfterRestart,
		"a late flush of an earlier epoch does not commit a later one":        m.commitNext,
		"a flush from before a restart commits nothing":                       m.commitAfterRestart,
		"a read after a lost tail does not go back":                           m.readAfterLostTail,
		"a read of a hydrated counter after a lost tail does not go back":     m.readHydratedAfterLostTail,
		"a write after a lost tail does not go back":                          m.writeAfterLostTail,
		"a row from before a restart checks nothing":                          m.checkAfterRestart,
		"a late trim removes no record of another incarnation":                m.trimAfterRestart,
		"an eviction does not touch an entry that was written meanwhile":      m.evictWritten,
	}
	for _, claim := range slices.Sorted(maps.Keys(claims)) {
		t.Run(claim, func(t *testing.T) {
			m.reset(t, machineBatch, nil)
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

// runUntil runs f until it is about to make the named call.
func (m *machine) runUntil(t rapid.TB, f *flight, call string) {
	for f.at != nil && f.at.name != call {
		m.step(f, proceed)
		m.landed(t, f)
	}
	require.NotNil(t, f.at, "the flight ended without the call "+call)
}

func (m *machine) drainTo(t rapid.TB, call string) *flight {
	f := m.launchDrain(t, m.cache.Shard("a"))
	m.landed(t, f)
	m.runUntil(t, f, call)
	return f
}

// readTo starts a read of a cold counter and stops it after the read of Postgres.
func (m *machine) readTo(t rapid.TB) *flight {
	f := m.launch("request", func(ctx context.Context, f *flight) {
		f.ops = m.ops("a", counter.Get)
		f.results = m.service.Do(ctx, f.ops, writepath.Options{})
	})
	m.runUntil(t, f, "hydrate")
	return f
}

// loseFlushed leaves a clean counter that lacks a flushed write.
func (m *machine) loseFlushed(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.restoreSnapshot(t)
}

func (m *machine) readAfterLostTail(t rapid.TB) {
	m.loseFlushed(t)
	m.do(t, m.ops("a", counter.Get), false)
	require.Equal(t, int64(2), m.look(t)["a"].version)
}

func (m *machine) readHydratedAfterLostTail(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.evictAll(t)
	m.do(t, m.ops("a", counter.Get), false)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.restoreSnapshot(t)
	m.noteIncarnation(t)
	m.do(t, m.ops("a", counter.Get), false)
	require.Equal(t, int64(2), m.look(t)["a"].version)
}

// noteIncarnation writes to the other keys, so that each shard's meta has the incarnation.
func (m *machine) noteIncarnation(t rapid.TB) {
	m.do(t, append(m.ops("b", counter.Increment), m.ops("c", counter.Increment)...), true)
}

func (m *machine) writeAfterLostTail(t rapid.TB) {
	m.loseFlushed(t)
	m.noteIncarnation(t)
	m.add(t, false)
	require.Equal(t, int64(3), m.look(t)["a"].version)
}

// The check of a slow reader has a row from before writes that Redis then loses.
func (m *machine) checkAfterRestart(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.save(t)
	m.restart(t)
	f := m.launch("request", func(ctx context.Context, f *flight) {
		f.ops = m.ops("a", counter.Get)
		f.results = m.service.Do(ctx, f.ops, writepath.Options{})
	})
	m.runUntil(t, f, "check")
	m.add(t, false)
	m.drain(t)
	m.restoreSnapshot(t)
	m.finish(t, f)
	require.Equal(t, int64(2), f.results[0].Counter.Version)
}

// restoreSnapshot restarts Redis from the last snapshot.
func (m *machine) restoreSnapshot(t rapid.TB) {
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
	m.restoreSnapshot(t)
	m.drain(t)
}

func (m *machine) dropLastKey(t rapid.TB) {
	m.add(t, false)
	f := m.launchByKey(t, m.cache.Shard("a"))
	m.runUntil(t, f, "commit") // the first commit drops the key; the second commits the epoch
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

// adoptionOpensEpoch compares the IDs of the open epochs, because nothing else shows that a new one began.
func (m *machine) adoptionOpensEpoch(t rapid.TB) {
	m.add(t, false)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.restoreSnapshot(t)
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

// Redis is restored, so one lineage continues twice. The first continuation reaches Postgres after the second was merged with the row
// before it.
func (m *machine) lateRowAfterMerge(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.restoreSnapshot(t)
	m.add(t, true)
	m.save(t)
	m.continueTwice(t, "reconcile")
}

func (m *machine) lateRowAfterRebase(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.evictAll(t)
	m.add(t, true)
	m.save(t)
	m.continueTwice(t, "hydrate")
}

func (m *machine) continueTwice(t rapid.TB, call string) {
	lost := m.drainTo(t, call)
	m.step(lost, proceed)
	m.landed(t, lost)
	if call == "reconcile" {
		m.finish(t, lost)
		lost = m.drainTo(t, "upsert")
	}
	m.runUntil(t, lost, "upsert")
	m.step(lost, delay)
	m.finish(t, lost)
	m.restoreSnapshot(t)
	m.add(t, true)
	f := m.drainTo(t, call)
	m.step(f, proceed)
	m.landed(t, f)
	m.step(f, crash)
	m.makeLate(t, 0)
}

// A repair drops a clean entry that is older than its row, unless the entry was written meanwhile.
func (m *machine) repairWritten(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.restoreSnapshot(t)
	f := m.launchRepair(t, "a")
	m.runUntil(t, f, "repair")
	m.add(t, false)
	m.drain(t)
	m.finish(t, f)
}

func (m *machine) reconcileMoved(t rapid.TB) {
	m.add(t, false)
	m.save(t)
	m.add(t, false)
	m.drain(t)
	m.restoreSnapshot(t)
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
	m.restoreSnapshot(t)
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
	m.requeueKeys(t, "a")
	m.drain(t)
	m.restoreSnapshot(t)
	m.requeueKeys(t, "a")
	m.add(t, false)
}

func (m *machine) settleAfterRestart(t rapid.TB) {
	m.add(t, false)
	m.setAside(t)
	f := m.launchRetry(t, "a", 1)
	m.runUntil(t, f, "settle")
	m.step(f, delay)
	m.add(t, false)
	m.save(t)
	m.add(t, false)
	m.requeueKeys(t, "a")
	m.drain(t)
	m.restoreSnapshot(t)
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
	f := m.drainTo(t, "commit") // the key is set aside, but the snapshot does not have that
	m.restoreSnapshot(t)
	m.finish(t, f)
	m.refuse(t, "a", false)
}

func (m *machine) trimAfterRestart(t rapid.TB) {
	m.save(t)
	m.add(t, false)
	f := m.drainTo(t, "trim")
	m.step(f, delay)
	m.finish(t, f)
	m.restoreSnapshot(t)
	m.add(t, true)
	m.makeLate(t, 0)
}

func (m *machine) evictWritten(t rapid.TB) {
	m.add(t, false)
	m.drain(t)
	f := m.launchEviction(t)
	m.runUntil(t, f, "evict")
	m.add(t, false)
	m.finish(t, f)
}
