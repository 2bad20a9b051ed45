package cache_test

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// bounded returns the operation with bounds.
func bounded(op counter.Operation, least, most int64) counter.Operation {
	op.Condition = &counter.Condition{Min: least, Max: most}
	return op
}

// atVersion returns the operation for one version only.
func atVersion(op counter.Operation, version int64) counter.Operation {
	c := counter.Unconditional()
	c.Version, c.Exists = version, true
	op.Condition = &c
	return op
}

// ifExists returns the operation for a counter that exists.
func ifExists(op counter.Operation) counter.Operation {
	c := counter.Unconditional()
	c.Exists = true
	op.Condition = &c
	return op
}

// ifAbsent returns the operation for a counter that does not exist.
func ifAbsent(op counter.Operation) counter.Operation {
	c := counter.Unconditional()
	c.Absent = true
	op.Condition = &c
	return op
}

// requireUnmet requires that the operation was not applied, and that its error has the counter's present state.
func requireUnmet(t require.TestingT, o cache.Outcome, code counter.Code, value, version int64, exists bool) {
	require.Equal(t, code, counter.CodeOf(o.Err), "%v", o.Err)
	var e *counter.Error
	require.ErrorAs(t, o.Err, &e)
	require.Equal(t, &counter.Counter{Value: value, Version: version, Exists: exists, Known: true}, e.Current)
}

func TestBoundsRefuseWhatWouldLeaveThem(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "new")
	b.do(t, set("a", 3))
	before := b.whole(t, "a")

	got := b.do(t, bounded(increment("a", -4), 0, math.MaxInt64), bounded(increment("a", 98), math.MinInt64, 100),
		bounded(increment("new", -1), 0, 10))

	requireUnmet(t, got[0], counter.CodeOutOfBounds, 3, 1, true)
	requireUnmet(t, got[1], counter.CodeOutOfBounds, 3, 1, true)
	requireUnmet(t, got[2], counter.CodeOutOfBounds, 0, 0, false)
	require.Equal(t, before, b.whole(t, "a"))
	require.False(t, b.dirty(t, "new"), "a refused operation makes no key dirty")

	got = b.do(t, bounded(increment("a", -3), 0, 100), bounded(increment("a", 100), 0, 100), bounded(increment("new", 10), 0, 10))
	require.Equal(t, []int64{0, 100, 10}, []int64{got[0].Value, got[1].Value, got[2].Value})
	require.Equal(t, int64(3), got[1].Version)
}

func TestOverflowIsOutOfBounds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", math.MaxInt64))
	requireUnmet(t, b.do(t, bounded(increment("a", 1), 0, math.MaxInt64))[0], counter.CodeOutOfBounds, math.MaxInt64, 1, true)
}

// The script compares 64-bit integers exactly, although Lua's numbers are doubles.
func TestBoundsAreExact(t *testing.T) {
	t.Parallel()
	b := setup(t)
	serial := 0
	rapid.Check(t, func(rt *rapid.T) {
		serial++
		key := counter.Key("k" + strconv.Itoa(serial))
		value, least := int64s().Draw(rt, "value"), int64s().Draw(rt, "min")
		most := int64s().Filter(func(n int64) bool { return n >= least }).Draw(rt, "max")
		if rapid.Bool().Draw(rt, "near") {
			least, most = value, max(value, most)
		}
		b.warm(t, key)
		b.do(t, set(key, value))
		o := b.do(t, bounded(increment(key, 0), least, most))[0]
		if value < least || value > most {
			requireUnmet(rt, o, counter.CodeOutOfBounds, value, 1, true)
			return
		}
		require.NoError(rt, o.Err)
		require.Equal(rt, value, o.Value)
	})
}

func TestVersionMustMatch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "gone", "never")
	b.do(t, set("a", 7), increment("a", 1), set("gone", 1), del("gone"))

	for _, op := range []counter.Operation{increment("a", 1), set("a", 1), del("a")} {
		for _, version := range []int64{1, 3, 22, math.MaxInt64} {
			requireUnmet(t, b.do(t, atVersion(op, version))[0], counter.CodeVersionMismatch, 8, 2, true)
		}
	}
	for _, op := range []counter.Operation{increment("gone", 1), set("gone", 1), del("gone")} {
		requireUnmet(t, b.do(t, atVersion(op, 2))[0], counter.CodeVersionMismatch, 0, 2, false)
		requireUnmet(t, b.do(t, ifExists(op))[0], counter.CodeVersionMismatch, 0, 2, false)
	}
	requireUnmet(t, b.do(t, ifExists(set("never", 1)))[0], counter.CodeVersionMismatch, 0, 0, false)

	got := b.do(t, atVersion(set("a", 5), 2), ifExists(increment("a", 1)), atVersion(del("a"), 4))
	require.Equal(t, []int64{3, 4, 5}, []int64{got[0].Version, got[1].Version, got[2].Version})
	require.Equal(t, int64(6), got[1].Value)
	require.NoError(t, got[2].Err)
}

func TestCounterMustBeAbsent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "gone", "never")
	b.do(t, set("a", 7), set("gone", 1), del("gone"))

	got := b.do(t, ifAbsent(set("a", 1)), ifAbsent(set("gone", 2)), ifAbsent(set("never", 3)), ifAbsent(set("never", 4)))

	requireUnmet(t, got[0], counter.CodeVersionMismatch, 7, 1, true)
	require.Equal(t, []int64{2, 3, 3}, []int64{got[1].Value, got[1].Version, got[2].Value})
	require.NoError(t, got[1].Err)
	requireUnmet(t, got[3], counter.CodeVersionMismatch, 3, 1, true)
}

// A repeated request gets its first answer, although the counter no longer meets the condition.
func TestConditionIsNotCheckedAgainForTheSameID(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, set("a", 1))
	op := bounded(increment("a", -1), 0, 10)
	op.ID = "take"
	first, again := b.do(t, op)[0], b.do(t, op)[0]
	require.Equal(t, int64(0), first.Value)
	require.True(t, again.Replayed)
	require.Equal(t, first.Value, again.Value)

	refused := op
	refused.ID = "take more"
	requireUnmet(t, b.do(t, refused)[0], counter.CodeOutOfBounds, 0, 2, true)
	b.do(t, set("a", 5))
	require.Equal(t, int64(4), b.do(t, refused)[0].Value, "an operation that was refused may be tried again")

	other := op
	other.Condition = &counter.Condition{Min: -5, Max: 10}
	require.Equal(t, counter.CodeIdempotencyKeyReused, counter.CodeOf(b.do(t, other)[0].Err))
}

func TestConditionNeedsTheBase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.True(t, b.do(t, bounded(increment("a", 1), 0, 10))[0].Cold)
	b.blind(t, increment("a", 2))
	o := b.do(t, bounded(increment("a", 1), 0, 10))[0]
	require.True(t, o.Cold && o.BlindWrites)
}

// Conditional operations are sent in the same calls as combined increments of the same counter.
func TestRaceForABoundedCounter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "units")
	b.do(t, set("units", 1000))
	w := b.cache.NewWriter(func() bool { return true })
	t.Cleanup(w.Close)

	var taken, refused sync.Map
	var clients sync.WaitGroup
	for c := range 200 {
		clients.Go(func() {
			for i := range 10 {
				o := w.Do(t.Context(), []cache.Write{{Operation: bounded(increment("units", -1), 0, math.MaxInt64)}})[0]
				if o.Err == nil {
					if _, twice := taken.LoadOrStore(o.Value, c); twice {
						panic(fmt.Sprint("two clients took ", o.Value))
					}
				} else {
					refused.Store([2]int{c, i}, counter.CodeOf(o.Err))
				}
			}
		})
	}
	clients.Wait()
	count := func(m *sync.Map) (n int) {
		m.Range(func(any, any) bool { n++; return true })
		return n
	}
	require.Equal(t, 1000, count(&taken))
	require.Equal(t, 1000, count(&refused))
	refused.Range(func(_, code any) bool {
		require.Equal(t, counter.CodeOutOfBounds, code)
		return true
	})
	require.Equal(t, int64(0), b.do(t, get("units"))[0].Value)
}
