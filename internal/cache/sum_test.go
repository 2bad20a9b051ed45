package cache_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// model is one counter and predicts Redis's answers.
type model struct {
	there     bool // there is an entry
	unknown   bool // its base is unknown
	deleted   bool
	dirty     bool
	value     int64
	version   int64
	base, was int64 // version and value before the unsynced writes
	reset     bool  // the value was set or deleted since
	records   map[string]record
}

// record is an operation with an ID, and its answer.
type record struct {
	kind   counter.Kind
	amount int64
	answer cache.Outcome
}

// carryOut applies one operation. The outcome has a Backlog of 1 if the operation made the counter dirty.
func (m *model) carryOut(w cache.Write, mayDirty bool) cache.Outcome {
	if r, found := m.records[w.ID]; found && w.ID != "" {
		if r.kind != w.Kind || r.amount != w.Amount {
			return cache.Outcome{Err: &counter.Error{Code: counter.CodeIdempotencyKeyReused}}
		}
		return r.answer
	}
	o := m.apply(w, mayDirty)
	if w.ID != "" && o.Err == nil && !o.Cold {
		answer := o
		answer.Backlog, answer.Replayed = 0, true
		m.records[w.ID] = record{w.Kind, w.Amount, answer}
	}
	return o
}

func (m *model) apply(w cache.Write, mayDirty bool) cache.Outcome {
	refused := func(code counter.Code) cache.Outcome { return cache.Outcome{Err: &counter.Error{Code: code}} }
	switch {
	case !mayDirty && w.Kind != counter.Get && !m.dirty:
		return refused(counter.CodeBackpressure)
	case (!m.there || m.unknown) && !w.Blind:
		return cache.Outcome{Cold: true, BlindWrites: m.there}
	case w.Kind == counter.Get || (w.Kind == counter.Delete && m.deleted):
		if m.unknown {
			return cache.Outcome{Exists: true}
		}
		return cache.Outcome{Value: m.value, Version: m.version, Known: true, Exists: !m.deleted, Synced: !m.dirty}
	}
	value := w.Amount
	switch w.Kind {
	case counter.Increment:
		if value = m.value + w.Amount; (w.Amount > 0) != (value > m.value) && w.Amount != 0 {
			return refused(counter.CodeOverflow)
		}
	case counter.Delete:
		value = 0
	case counter.Get, counter.Set:
	}
	return m.write(w.Kind, value, int64(w.Increments()))
}

func (m *model) write(kind counter.Kind, value, operations int64) cache.Outcome {
	o := cache.Outcome{Exists: true}
	if !m.dirty {
		o.Backlog = 1
		m.dirty, m.base, m.was, m.reset = true, m.version, m.value, false
	}
	if kind != counter.Increment && m.there {
		m.reset = true
	}
	m.unknown = m.unknown || !m.there
	m.there, m.deleted = true, kind == counter.Delete
	m.value, m.version = value, m.version+operations
	if !m.unknown {
		o.Value, o.Version, o.Known = m.value, m.version, true
	}
	return o
}

// drawBatch draws some operations on few keys, to be sent in one call.
func drawBatch(rt *rapid.T, keys []counter.Key) []cache.Write {
	amounts := int64s()
	switch rapid.IntRange(0, 3).Draw(rt, "amounts") {
	case 0, 1:
		amounts = rapid.Int64Range(-2e10-1, 2e10+1)
	case 2: // some of them overflow
		amounts = rapid.SampledFrom([]int64{4e18, -4e18, 1e18, -1e18})
	}
	mixed := rapid.Bool().Draw(rt, "mixed")
	return rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) cache.Write {
		w := cache.Write{Operation: increment(rapid.SampledFrom(keys).Draw(rt, "key"), amounts.Draw(rt, "amount"))}
		w.Blind = rapid.IntRange(0, 4).Draw(rt, "blind") == 0
		if w.Amount >= -counter.MaxCombined && w.Amount <= counter.MaxCombined && rapid.IntRange(0, 4).Draw(rt, "sum") == 0 {
			w.Count = rapid.Int32Range(1, 20).Draw(rt, "count")
			return w
		}
		if !mixed {
			return w
		}
		if w.Kind = rapid.SampledFrom([]counter.Kind{
			counter.Increment, counter.Increment, counter.Increment, counter.Increment, counter.Set, counter.Delete, counter.Get,
		}).Draw(rt, "kind"); w.Kind == counter.Get || w.Kind == counter.Delete {
			w.Amount = 0
		}
		if w.Kind == counter.Get {
			w.Blind = false
		} else {
			w.ID = rapid.SampledFrom([]string{"", "", "", "", "", "1", "2"}).Draw(rt, "id")
		}
		return w
	}), 1, 40).Draw(rt, "batch")
}

// plainly formats an outcome without the number of dirty keys and the token, which depend on other keys.
func plainly(o cache.Outcome) string {
	code := counter.CodeOf(o.Err)
	if code != "" || o.Cold {
		return fmt.Sprintf("%s cold %v blind writes %v", code, o.Cold, o.BlindWrites)
	}
	return fmt.Sprintf("%d version %d known %v exists %v synced %v replayed %v newly dirty %v",
		o.Value, o.Version, o.Known, o.Exists, o.Synced, o.Replayed, o.Backlog > 0)
}

// Increments of one key in one call are combined. No mix of operations makes that visible.
func TestBatchEqualsItsOperationsOneByOne(t *testing.T) {
	t.Parallel()
	var mayDirty atomic.Bool
	one, together := setup(t), setup(t)
	for _, b := range []*testBundle{one, together} {
		b.writer = b.cache.NewWriter(mayDirty.Load)
		t.Cleanup(b.writer.Close)
	}
	serial := 0
	rapid.Check(t, func(rt *rapid.T) {
		serial++
		models := make(map[counter.Key]*model)
		for i := range rapid.IntRange(1, 4).Draw(rt, "keys") {
			key := counter.Key("k" + strconv.Itoa(serial) + "-" + strconv.Itoa(i))
			models[key] = &model{records: make(map[string]record)}
			if !rapid.Bool().Draw(rt, "warm") {
				continue
			}
			m := models[key]
			m.there, m.value, m.version = true, int64s().Draw(rt, "value"), rapid.Int64Range(1, 1e15).Draw(rt, "version")
			if m.deleted = rapid.IntRange(0, 9).Draw(rt, "deleted") == 0; m.deleted {
				m.value = 0
			}
			for _, b := range []*testBundle{one, together} {
				row := counter.Row{Value: m.value, Version: m.version, Deleted: m.deleted}
				b.hydrate(t, cache.Base{Key: key, Found: true, Row: row}, cache.Hydrated)
			}
		}
		keys := slices.Sorted(maps.Keys(models))
		for range rapid.IntRange(1, 4).Draw(rt, "batches") {
			writes := drawBatch(rt, keys)
			mayDirty.Store(rapid.IntRange(0, 5).Draw(rt, "backpressure") > 0)

			got := together.writer.Do(t.Context(), writes)

			for i, w := range writes {
				if isNotCombined(got[i]) {
					require.Greater(rt, w.Count, int32(1), "%d: %v", i, w)
					continue // it had no effect: its caller sends the increments one by one
				}
				want := models[w.Key].carryOut(w, mayDirty.Load())
				alone := one.writer.Do(t.Context(), writes[i:i+1])[0]
				if isNotCombined(alone) { // in the batch it was combined with an increment before it
					alone = one.separately(t, w)
				}
				require.Equal(rt, plainly(want), plainly(alone), "%d, one by one: %v", i, w)
				require.Equal(rt, plainly(want), plainly(got[i]), "%d, in a batch: %v", i, w)
			}
			for _, key := range keys {
				requireModel(t, rt, models[key], key, together)
				requireModel(t, rt, models[key], key, one)
			}
			if rapid.IntRange(0, 2).Draw(rt, "flush") == 0 {
				for _, b := range []*testBundle{one, together} {
					b.commitAll(t)
				}
				for _, m := range models {
					m.dirty = false
				}
			}
		}
	})
}

func isNotCombined(o cache.Outcome) bool { return counter.CodeOf(o.Err) == counter.CodeNotCombined }

// separately carries out the increments in a sum one by one, and returns the outcome as of the whole.
func (b *testBundle) separately(t *testing.T, w cache.Write) cache.Outcome {
	t.Helper()
	backlog := int64(0)
	single := w
	single.Count = 0
	for range w.Count - 1 {
		single.Amount = 0
		backlog = max(backlog, b.writer.Do(t.Context(), []cache.Write{single})[0].Backlog)
	}
	single.Amount = w.Amount
	o := b.writer.Do(t.Context(), []cache.Write{single})[0]
	o.Backlog = max(o.Backlog, backlog)
	return o
}

// A sum of increments that is refused holds up no other caller in the same call.
func TestSumThatMightOverflowInBetweenIsNotApplied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a", "b")
	b.do(t, set("a", math.MaxInt64-10))
	sum := increment("a", 0)
	sum.Count = 2
	other := increment("b", 5)
	other.Count = 3

	got := b.do(t, increment("a", 1), sum, increment("a", 1), other)

	require.True(t, isNotCombined(got[1]))
	require.Equal(t, []int64{math.MaxInt64 - 9, math.MaxInt64 - 8, 5}, []int64{got[0].Value, got[2].Value, got[3].Value})
	require.Equal(t, []int64{2, 3, 3}, []int64{got[0].Version, got[2].Version, got[3].Version})
}

// commitAll makes all keys clean.
func (b *testBundle) commitAll(t *testing.T) {
	t.Helper()
	for s := range b.cache.Shards() {
		if e := b.take(t, counter.Shard(s), cache.Taking{}); e.State != cache.Nothing {
			require.True(t, b.commit(t, e))
		}
	}
}

// requireModel compares an entry with the model.
func requireModel(t *testing.T, rt *rapid.T, m *model, key counter.Key, b *testBundle) {
	t.Helper()
	if !m.there {
		require.Empty(rt, b.whole(t, key))
		return
	}
	want := map[string]string{"v": strconv.FormatInt(m.value, 10), "n": strconv.FormatInt(m.version, 10)}
	e := b.whole(t, key)
	require.Equal(rt, m.dirty, b.dirty(t, key))
	if m.deleted {
		want["x"] = "1"
	}
	if m.unknown {
		require.True(rt, e["u"] != e["s"] && (e["u"] == "1" || e["s"] == "1"))
		delete(e, "u")
		delete(e, "s")
	}
	if m.dirty {
		require.NotContains(rt, e, "l", "it has one lineage, and no restart has ended any")
		want["b"] = strconv.FormatInt(m.base, 10)
		if !m.reset {
			want["w"] = strconv.FormatInt(m.was, 10)
		}
	} else {
		delete(e, "b")
		delete(e, "w")
		delete(e, "l")
	}
	delete(e, "e")
	require.Equal(rt, want, e)
}

// commands records the names of the commands that a client sends outside of pipelines.
type commands struct{ names []string }

func (*commands) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*commands) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *commands) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.names = append(c.names, cmd.Name())
		return next(ctx, cmd)
	}
}

func TestEachCallerOfCombinedIncrementsGetsItsOwnValue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.hydrate(t, cache.Base{Key: keys[0], Found: true, Row: counter.Row{Value: 100, Version: 7}}, cache.Hydrated)
	b.warm(t, keys[1])
	var sent commands
	b.redis.AddHook(&sent)

	got := b.do(t, increment(keys[0], 5), increment(keys[1], 1), increment(keys[0], -7), increment(keys[0], 0), increment(keys[0], 2))

	require.Equal(t, []string{"evalsha"}, sent.names)
	for i, want := range map[int]cache.Outcome{
		0: {Value: 105, Version: 8, Backlog: 2}, 1: {Value: 1, Version: 1, Backlog: 2}, 2: {Value: 98, Version: 9},
		3: {Value: 98, Version: 10}, 4: {Value: 100, Version: 11},
	} {
		want.Known, want.Exists = true, true
		require.Equal(t, want, bare(got[i]), i)
	}
	require.Equal(t, map[string]string{"v": "100", "n": "11"}, b.entry(t, keys[0]))
	require.Equal(t, got[0].Epoch, number36(t, b.meta(t, keys[0])["open"]))
	require.Equal(t, got[0].First, number36(t, b.meta(t, keys[0])["first"]))
	require.Equal(t, got[0].Epoch, got[4].Epoch)
}

func TestOperationBetweenIncrementsKeepsItsPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	got := b.do(t, increment("a", 1), increment("a", 2), get("a"), increment("a", 3), increment("a", 4), set("a", 100), increment("a", 5),
		increment("a", 6), del("a"), increment("a", 7), increment("a", 8), with("id", increment("a", 9)), increment("a", 10), increment("a", 11),
		with("id", increment("a", 9)))
	values, versions := make([]int64, len(got)), make([]int64, len(got))
	for i, o := range got {
		require.NoError(t, o.Err)
		values[i], versions[i] = o.Value, o.Version
	}
	require.Equal(t, []int64{1, 3, 3, 6, 10, 100, 105, 111, 0, 7, 15, 24, 34, 45, 24}, values)
	require.Equal(t, []int64{1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 11}, versions)
	require.True(t, got[14].Replayed)
}

// The sum fits, but an intermediate value does not: each operation gets the answer that it would get alone.
func TestSumWithAnOverflowOnTheWayIsCarriedOutOneByOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "a", Found: true, Row: counter.Row{Value: math.MaxInt64 - 5, Version: 1}}, cache.Hydrated)
	got := b.do(t, increment("a", 3), increment("a", 4), increment("a", -2), increment("a", 4), get("a"), set("a", 7))
	for i, want := range []int64{math.MaxInt64 - 2, 0, math.MaxInt64 - 4, math.MaxInt64, math.MaxInt64, 7} {
		if i == 1 {
			require.Equal(t, counter.CodeOverflow, counter.CodeOf(got[i].Err))
			continue
		}
		require.NoError(t, got[i].Err)
		require.Equal(t, want, got[i].Value, i)
	}
	require.Equal(t, []int64{2, 3, 4, 4, 5}, []int64{got[0].Version, got[2].Version, got[3].Version, got[4].Version, got[5].Version})
	require.Positive(t, got[0].Backlog)
	require.Zero(t, got[2].Backlog+got[3].Backlog+got[5].Backlog)
}

// The value has few digits, and the amounts add up to zero.
func TestLargeAmountsWithAnOverflowOnTheWayAreCarriedOutOneByOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	got := b.do(t, increment("a", 4e18), increment("a", 4e18), increment("a", 4e18), increment("a", -4e18), increment("a", -4e18))
	for i, want := range []int64{4e18, 8e18, 0, 4e18, 0} {
		if i == 2 {
			require.Equal(t, counter.CodeOverflow, counter.CodeOf(got[i].Err))
			continue
		}
		require.NoError(t, got[i].Err)
		require.Equal(t, want, got[i].Value, i)
	}
	require.Equal(t, int64(4), got[4].Version)
}

func TestKeyBecomesDirtyOnceUntilItIsCleanAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.warm(t, keys[:2]...)
	newly := func(ops ...counter.Operation) (n int) {
		for _, o := range b.blind(t, ops...) {
			require.NoError(t, o.Err)
			if o.Backlog > 0 {
				n++
			}
		}
		return n
	}
	for range 3 {
		require.Equal(t, 2, newly(increment(keys[0], 1), increment(keys[0], 1), set(keys[1], 1), increment(keys[1], 1)))
		require.Zero(t, newly(increment(keys[0], 1), increment(keys[0], 1), set(keys[1], 1), del(keys[1]), increment(keys[1], 1)))
		e := b.seal(t, keys[0])
		require.Zero(t, newly(increment(keys[0], 1), set(keys[1], 1)), "they are still dirty, in the epoch that is being flushed")
		require.True(t, b.commit(t, e))
		require.Zero(t, newly(increment(keys[0], 1), set(keys[1], 1)))
		b.flush(t, keys[0])
	}
	require.Equal(t, 1, newly(increment(keys[2], 1), increment(keys[2], 1)), "blind")
	require.Zero(t, newly(increment(keys[2], 1), set(keys[2], 1)))
}
