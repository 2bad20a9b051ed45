package cache_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// lostTail is a counter whose Redis loses its latest writes: it restarts with before, but without lost.
type lostTail struct {
	blind   bool                // Postgres has value 100, version 1; Redis has no entry, and before is written blindly
	unsaved bool                // before is not flushed when the snapshot is taken
	again   bool                // before is flushed before lost is written, which is therefore another lineage
	checked bool                // the entry is clean after the restart, and is checked before after is written
	before  []counter.Operation // the key "" stands for the key of the case
	lost    []counter.Operation // flushed, and then lost by Redis
	after   []counter.Operation // written after the restart
	want    counter.Row
}

func lostTails() map[string]lostTail {
	plus := func(n int) []counter.Operation {
		ops := make([]counter.Operation, n)
		for i := range ops {
			ops[i] = increment("", 1)
		}
		return ops
	}
	rows := func(value, version int64) counter.Row { return counter.Row{Value: value, Version: version} }
	deleted := func(version int64) counter.Row { return counter.Row{Version: version, Deleted: true} }
	cases := make(map[string]lostTail)
	for _, unsaved := range []bool{false, true} {
		for _, again := range []bool{false, true} {
			for name, c := range map[string]lostTail{
				"three more":              {lost: plus(5), after: plus(3), want: rows(108, 9)},
				"as many more":            {lost: plus(5), after: plus(5), want: rows(110, 11)},
				"past it":                 {lost: plus(5), after: plus(10), want: rows(115, 16)},
				"the sum by another way":  {lost: plus(5), after: []counter.Operation{increment("", 5)}, want: rows(110, 7)},
				"set":                     {lost: plus(5), after: []counter.Operation{set("", 7), increment("", 1)}, want: rows(8, 8)},
				"more and set":            {lost: plus(5), after: []counter.Operation{increment("", 1), set("", 7)}, want: rows(7, 8)},
				"deleted":                 {lost: plus(5), after: []counter.Operation{del("")}, want: deleted(7)},
				"deleted and more":        {lost: plus(5), after: []counter.Operation{del(""), increment("", 4)}, want: rows(4, 8)},
				"a lost set":              {lost: []counter.Operation{set("", 500)}, after: plus(3), want: rows(503, 5)},
				"a lost delete":           {lost: []counter.Operation{del("")}, after: plus(3), want: rows(3, 5)},
				"nothing lost, three":     {after: plus(3), want: rows(103, 4)},
				"nothing more":            {lost: plus(5), want: rows(105, 6)},
				"nothing more, a delete":  {lost: []counter.Operation{del("")}, want: deleted(2)},
				"nothing more, back":      {lost: []counter.Operation{del(""), increment("", 4)}, want: rows(4, 3)},
				"nothing more, increased": {lost: []counter.Operation{set("", 7)}, want: rows(7, 2)},
			} {
				c.before, c.unsaved, c.again = []counter.Operation{set("", 100)}, unsaved, again
				if c.after != nil || unsaved { // otherwise only the check compares the entry with its row
					cases[fmt.Sprintf("%s, unsaved %v, flushed between %v", name, unsaved, again)] = c
				}
				if c.checked = true; !unsaved {
					cases[fmt.Sprintf("checked, %s, flushed between %v", name, again)] = c
				}
			}
		}
	}
	for _, again := range []bool{false, true} {
		for name, c := range map[string]lostTail{
			"three more":              {lost: plus(2), after: plus(3), want: rows(110, 1+5+2+3)},
			"past it":                 {lost: plus(2), after: plus(30), want: rows(137, 1+5+2+30)},
			"nothing more":            {lost: plus(2), want: rows(107, 1+5+2)},
			"nothing lost, more":      {after: plus(3), want: rows(108, 1+5+3)},
			"set":                     {lost: plus(2), after: []counter.Operation{set("", 7), increment("", 1)}, want: rows(8, 1+5+2+2)},
			"a lost set":              {lost: []counter.Operation{set("", 50)}, after: plus(3), want: rows(53, 1+5+1+3)},
			"a lost delete, and more": {lost: []counter.Operation{del("")}, after: plus(3), want: rows(3, 1+5+1+3)},
			"a lost delete":           {lost: []counter.Operation{del("")}, want: deleted(1 + 5 + 1)},
		} {
			c.blind, c.unsaved, c.again, c.before = true, true, again, plus(5)
			cases[fmt.Sprintf("blind, %s, flushed between %v", name, again)] = c
		}
	}
	return cases
}

func TestRedisThatLostItsTailLosesOnlyUnsyncedWrites(t *testing.T) {
	t.Parallel()
	for name, c := range lostTails() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, p, key := setup(t), postgres{}, counter.Key("k")
			write := func(ops []counter.Operation) {
				for _, op := range ops {
					op.Key = key
					o := b.send(t, c.blind, []counter.Operation{op})[0]
					require.NoError(t, o.Err)
					require.False(t, o.Cold)
				}
			}
			if c.blind {
				p[key] = counter.Row{Key: key, Value: 100, Version: 1}
			} else {
				b.warm(t, key)
			}
			write(c.before)
			if !c.unsaved {
				b.drain(t, p)
			}
			before := b.snapshot(t)
			if c.again {
				b.drain(t, p)
			}
			write(c.lost)
			b.drain(t, p)
			b.rollback(t, before)
			if c.checked {
				b.check(t, cache.Base{Key: key, Row: p[key], Found: true, Token: b.unchecked(t, key)}, expected(c.lost))
				o := b.unaccepted(t, get(key))[0]
				require.Equal(t, p[key].Value, o.Value, "no read goes back")
				require.Equal(t, p[key].Version, o.Version)
				require.Equal(t, !p[key].Deleted, o.Exists)
			}
			write(c.after)

			reconciled := b.drain(t, p)

			if c.checked {
				require.Zero(t, reconciled)
			}
			c.want.Key, c.want.Lineage = key, p[key].Lineage
			require.Equal(t, c.want, p[key])
			require.False(t, b.dirty(t, key))
			got := b.do(t, get(key))[0]
			require.Equal(t, c.want.Value, got.Value)
			require.Equal(t, c.want.Version, got.Version)
			require.Equal(t, !c.want.Deleted, got.Exists)
			require.True(t, got.Synced)
		})
	}
}

// expected returns what the check of an entry says that lacks the lost operations.
func expected(lost []counter.Operation) cache.Hydration {
	if len(lost) > 0 {
		return cache.Renewed
	}
	return cache.Hydrated
}

// Redis loses its tail and accepts writes. Before those are flushed it restarts again, without losing anything.
func TestSecondRestartBeforeTheFlushLosesNothingMore(t *testing.T) {
	t.Parallel()
	b, p := setup(t), postgres{}
	b.warm(t, "few", "many", "set", "none")
	b.do(t, set("few", 100), set("many", 100), set("set", 100), set("none", 100))
	b.drain(t, p)
	before := b.snapshot(t)
	b.do(t, increment("few", 5), increment("many", 1), increment("many", 1), increment("many", 3), increment("set", 5))
	b.drain(t, p)
	b.rollback(t, before)
	b.do(t, increment("few", 10), increment("many", 10), set("set", 7), increment("none", 10))
	b.restart(t)
	b.do(t, increment("few", 20), increment("many", 20), increment("set", 20), increment("none", 20))

	b.drain(t, p)

	for key, want := range map[counter.Key]counter.Row{
		"few": {Value: 135, Version: 4}, "many": {Value: 135, Version: 6}, "set": {Value: 27, Version: 4}, "none": {Value: 130, Version: 3},
	} {
		want.Key, want.Lineage = key, p[key].Lineage
		require.Equal(t, want, p[key])
	}
}

// A flush from before the restart may reach Postgres after a flush from after it.
func TestLateFlushOfALostTailDoesNotReplaceLaterWrites(t *testing.T) {
	t.Parallel()
	b, p := setup(t), postgres{}
	b.warm(t, "a")
	b.do(t, set("a", 100))
	b.drain(t, p)
	before := b.snapshot(t)
	b.do(t, increment("a", 1), increment("a", 1), increment("a", 1))
	late := b.dirtyEntry(t, "a")
	b.rollback(t, before)
	b.do(t, increment("a", 10))
	b.drain(t, p)
	after := p["a"]
	require.Equal(t, int64(110), after.Value)

	_, kept := p.upsert(late.Row)

	require.True(t, kept)
	require.Equal(t, after, p["a"])
}

// Two restarts. The first flush of the merged entry is in flight when Redis loses the merge, and lands after the second merge. Only the
// number of the ended lineage, which is kept, shows that the row has its write; otherwise it would count twice.
func TestLateFlushOfAMergedEntryIsNotCountedTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := postgres{"k": {Key: "k", Value: 10, Version: 10, Lineage: 3}}
	b.hydrate(t, cache.Base{Key: "k", Row: p["k"], Found: true}, cache.Hydrated)
	clean := b.snapshot(t)
	b.do(t, increment("k", 5))
	lost := b.dirtyEntry(t, "k")
	b.rollback(t, clean)

	b.do(t, increment("k", 1))
	unmerged := b.snapshot(t)
	_, kept := p.upsert(lost.Row)
	require.False(t, kept)
	b.reconcile(t, cache.Conflict{Entry: b.dirtyEntry(t, "k"), Row: p["k"]}, cache.Reconciled)
	late := b.dirtyEntry(t, "k")
	require.Equal(t, int64(16), late.Value)
	b.rollback(t, unmerged)

	b.do(t, increment("k", 1))
	b.reconcile(t, cache.Conflict{Entry: b.dirtyEntry(t, "k"), Row: p["k"]}, cache.Reconciled)
	require.Equal(t, int64(17), b.dirtyEntry(t, "k").Value)
	require.NotEmpty(t, b.whole(t, "k")["p"], "the ended lineage is kept")
	_, kept = p.upsert(late.Row)
	require.False(t, kept, "the late flush lands")

	b.drain(t, p)

	require.Equal(t, counter.Row{Key: "k", Value: 10 + 5 + 1 + 1, Version: 13, Lineage: p["k"].Lineage}, p["k"])
}

// The same for an entry that had no base until after the second restart.
func TestLateFlushOfARebasedEntryIsNotCountedTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := postgres{"k": {Key: "k", Value: 10, Version: 10, Lineage: 3}}
	b.blind(t, increment("k", 1))
	blind := b.snapshot(t)
	b.hydrate(t, cache.Base{Key: "k", Row: p["k"], Found: true}, cache.Hydrated)
	late := b.dirtyEntry(t, "k")
	b.rollback(t, blind)

	b.blind(t, increment("k", 5))
	b.hydrate(t, cache.Base{Key: "k", Row: p["k"], Found: true}, cache.Hydrated)
	require.Equal(t, int64(16), b.dirtyEntry(t, "k").Value)
	_, kept := p.upsert(late.Row)
	require.False(t, kept, "the late flush lands")

	b.drain(t, p)

	require.Equal(t, counter.Row{Key: "k", Value: 10 + 1 + 5, Version: 12, Lineage: p["k"].Lineage}, p["k"])
}
