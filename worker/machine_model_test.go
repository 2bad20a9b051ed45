package worker

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// The model of the machine: a counter is the list of the operations applied to it. Redis has one list for each key and Postgres another;
// the rules are about how the two may change.

// written is an operation that was acknowledged. Each has its own amount (see amount), so a value shows which operations it contains, and
// how often.
type written struct {
	kind   counter.Kind
	amount int64
	number int   // in the order of acknowledgement
	rewind int64 // the version that a discard set, dropping all operations before it; 0: not a discard

	epoch, first int64 // of the shard, after Redis had applied it; 0: unknown
}

// start reports whether w is the value of a mapped column before the run.
func (w *written) start() bool { return w.number == 0 }

// history is the operations of a state, in order.
type history []*written

// state returns the value of a counter after h, and whether it is deleted (or was never written).
func (h history) state() (value int64, deleted bool) {
	deleted = true
	for _, w := range h {
		switch w.kind {
		case counter.Increment:
			value, deleted = value+w.amount, false
		case counter.Set:
			value, deleted = w.amount, false
		case counter.Delete:
			value, deleted = 0, true
		case counter.Get:
		}
	}
	return value, deleted
}

// union is the rule of every merge: all operations of either history, once, in order.
func (h history) union(other history) history {
	all := slices.Clone(h)
	for _, w := range other {
		if !slices.Contains(all, w) {
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(a, b *written) int { return a.number - b.number })
	return all
}

// within reports whether other has every operation of h, except the ones that a discard in other dropped.
func (h history) within(other history) bool {
	return !slices.ContainsFunc(h, func(w *written) bool { return !other.has(w) })
}

func (h history) has(w *written) bool {
	return slices.ContainsFunc(h, func(o *written) bool { return o == w || (o.rewind > 0 && o.number > w.number) })
}

// may reports whether a counter may have a version after h: the number of operations, or more after a discard.
func (h history) may(version int64) bool {
	for _, w := range slices.Backward(h) {
		if w.rewind > 0 {
			return version >= w.rewind
		}
	}
	return version == h.version()
}

// version returns the version of a counter after h, if h has no discard. The value of a column, before all operations, has version 0.
func (h history) version() int64 {
	n := int64(len(h))
	if n > 0 && h[0].start() {
		n--
	}
	return n
}

// is reports whether the given state is the state after h.
func (h history) is(value, version int64, deleted bool) bool {
	v, d := h.state()
	return v == value && d == deleted && h.may(version)
}

func (h history) same(other history) bool { return h.within(other) && other.within(h) }

func (h history) String() string {
	words := make([]string, len(h))
	for i, w := range h {
		words[i] = fmt.Sprintf("%s#%d", string("?gisd"[w.kind]), w.number)
	}
	return "[" + strings.Join(words, " ") + "]"
}

// cell is the state of a key in Redis.
type cell struct {
	present bool
	blind   bool // ops are relative to a base that only Postgres has
	ops     history
}

func (c cell) String() string {
	switch {
	case !c.present:
		return "nothing"
	case c.blind:
		return "base + " + c.ops.String()
	}
	return c.ops.String()
}

// modelKey is the model of a key.
type modelKey struct {
	entry cell
	row   history
	rows  []history // that Postgres has ever had, the empty one first
	must  history   // what Redis and Postgres together must have: acknowledged operations that no rollback has lost
	floor history   // what Postgres had when Redis was last restarted, without the value of the column: no read may lack it

	rewind *written            // the discard that has just rewound the entry
	seen   counter.Row         // row, as it was read last
	flown  map[int64][]history // states sent to Postgres, by lineage
	used   int                 // amounts given out
	shown  observed            // as it was logged last
}

// observed is the real state of a key in Redis.
type observed struct {
	present, blind, deleted, aside bool
	value, version                 int64
	epoch                          int64
	known                          int64  // the last epoch in which it was certainly compared with Postgres, or written
	text                           string // all of the entry
	ttl                            int64  // ms; -1 none, -2 no entry
	records                        int64  // in its list

	open, sealed, retry, dead bool // where the key is
	shard                     observedShard
}

// observedShard is the state of a key's shard in Redis.
type observedShard struct {
	watermark, first, requeued int64
	sealed                     int64 // ID of the sealed epoch; 0: none
	unflushed                  int64 // records
	aside                      bool  // some keys are set aside
	restarted                  bool  // since its last script that wrote
}

// String is for the log of a failed run.
func (o observed) String() string {
	words := []string{o.text}
	for _, place := range []struct {
		name string
		in   bool
	}{{"OPEN", o.open}, {"SEALED", o.sealed}, {"RETRY", o.retry}, {"DEAD", o.dead}} {
		if place.in {
			words = append(words, place.name)
		}
	}
	id := func(n int64) string { return strconv.FormatInt(n, 36) }
	return fmt.Sprintf("%s, %d records, TTL %d; watermark %s, sealed %s, first %s, requeued %s", strings.Join(words, " "), o.records, min(o.ttl, 1),
		id(o.shard.watermark), id(o.shard.sealed), id(o.shard.first), id(o.shard.requeued))
}

func (o observed) dirty() bool { return o.present && (o.aside || o.epoch > o.shard.watermark) }

// checked reports whether o is clean and was used, by anything but a read while Postgres was away, since the last restart.
func (o observed) checked() bool {
	return o.present && !o.dirty() && !o.shard.restarted && o.known >= o.shard.first
}

// is reports whether o equals c.
func (o observed) is(c cell) bool {
	if o.present != c.present {
		return false
	}
	return !c.present || (o.blind == c.blind && c.ops.is(o.value, o.version, o.deleted))
}

// attempt is an operation that was sent, and its result.
type attempt struct {
	op     counter.Operation
	result counter.Result
	number int
	slow   bool             // it took several steps, and the counter did not exist when it began
	before *counter.Counter // the earlier result of its ID; nil: there was none
}

// missed reports a read that found no row and did not read Redis again. It is right if the counter did not exist when it began, whatever
// was written meanwhile.
func (a attempt) missed() bool {
	got := a.result.Counter
	return a.slow && a.op.Kind == counter.Get && got.Known && got.Version == 0
}

// replayed returns why a result is wrong for its operation ID.
func (a attempt) replayed() string {
	switch got := a.result.Counter; {
	case a.result.Replayed != (a.before != nil):
		return fmt.Sprintf("%v: replayed is %v, but the ID was answered %+v before", a.op, a.result.Replayed, a.before)
	case a.before == nil:
	case got.Known != a.before.Known, got.Value != a.before.Value, got.Version != a.before.Version, got.Exists != a.before.Exists:
		return fmt.Sprintf("%v was answered %+v, and before %+v", a.op, got, *a.before)
	}
	return ""
}

// bases returns the states that an entry may have had before the attempts of a step: its last state; its union with an earlier row, because
// a step may hydrate or repair the entry; or none.
func (k *modelKey) bases() []cell {
	if k.rewind != nil {
		return []cell{{present: true, ops: append(k.entry.ops.union(k.row), k.rewind)}}
	}
	cells := []cell{k.entry}
	if !k.entry.present {
		cells = append(cells, cell{present: true, blind: true})
	}
	if len(k.row) == 1 && k.row[0].start() && (k.entry.blind || !k.entry.present) {
		cells = append(cells, cell{present: true, ops: k.withStart(k.entry.ops)}) // hydrated without the mapping
	}
	for _, row := range slices.Backward(k.rows) {
		cells = append(cells, cell{present: true, ops: k.entry.ops.union(row)})
	}
	if k.entry.present && !k.entry.blind && k.entry.ops.within(k.row) {
		cells = append(cells, cell{}) // it was evicted
	}
	return cells
}

// after returns the entry after the attempts, or why their results are wrong.
func (k *modelKey) after(base cell, attempts []attempt) (cell, string) {
	c := base
	for _, a := range attempts {
		if unmet, ok := a.unmet(); ok {
			var problem string
			if c, problem = k.refuse(c, a, unmet); problem != "" {
				return c, problem
			}
			continue
		}
		if a.result.Err != nil || a.missed() {
			continue // nothing may have changed
		}
		if problem := a.replayed(); problem != "" {
			return c, problem
		}
		if a.result.Replayed {
			continue
		}
		var problem string
		if c, problem = k.carryOut(c, a); problem != "" {
			return c, problem
		}
	}
	return c, ""
}

// unmet returns the error of an attempt whose condition the counter did not meet.
func (a attempt) unmet() (*counter.Error, bool) {
	e, ok := errors.AsType[*counter.Error](a.result.Err)
	return e, ok && (e.Code == counter.CodeOutOfBounds || e.Code == counter.CodeVersionMismatch)
}

// refuse returns the entry after an attempt whose condition was not met, or why that is wrong.
func (k *modelKey) refuse(c cell, a attempt, e *counter.Error) (cell, string) {
	if c.present && c.blind {
		c = cell{present: true, ops: c.ops.union(k.row)} // it hydrated the key
	}
	value, deleted := c.ops.state()
	if a.op.Condition == nil || !c.present {
		return c, fmt.Sprintf("%v was refused: %v", a.op, e)
	}
	if deleted {
		value = 0
	}
	now, want := *e.Current, *a.op.Condition
	if now.Value != value || now.Exists == deleted || !c.ops.may(now.Version) {
		return c, fmt.Sprintf("%v was refused for %+v; want value %d, version %d", a.op, now, value, len(c.ops))
	}
	if e.Code == counter.CodeOutOfBounds && value+a.op.Amount >= want.Min && value+a.op.Amount <= want.Max {
		return c, fmt.Sprintf("%v is within its bounds, and was refused: %+v", a.op, now)
	}
	if e.Code == counter.CodeVersionMismatch && now.Exists && (want.Version == 0 || want.Version == now.Version) {
		return c, fmt.Sprintf("%v has its version, and was refused: %+v", a.op, now)
	}
	return c, ""
}

// ignored returns why an attempt that was applied did not meet its condition. before is the history of the counter.
func (a attempt) ignored(before history) string {
	if a.op.Condition == nil {
		return ""
	}
	want, got := *a.op.Condition, a.result.Counter
	_, deleted := before.state()
	outside := a.op.Kind == counter.Increment && (got.Value < want.Min || got.Value > want.Max)
	if !got.Known || outside || (want.Exists && deleted) || (want.Version != 0 && got.Version != want.Version+1) {
		return fmt.Sprintf("%v does not meet its condition %+v, and was applied: %+v", a.op, want, got)
	}
	return ""
}

// carryOut returns the entry after one attempt, or why its result is wrong.
func (k *modelKey) carryOut(c cell, a attempt) (cell, string) {
	got := a.result.Counter
	if got.Known && c.present && c.blind {
		c = cell{present: true, ops: c.ops.union(k.row)} // it hydrated the key
	}
	known := c.ops
	if !c.present {
		known = k.row // only a get leaves it so
	}
	if problem := a.ignored(known); problem != "" {
		return c, problem
	}
	_, deleted := known.state()
	blindStart := c.blind && len(c.ops) == 0
	if a.op.Kind != counter.Get && (a.op.Kind != counter.Delete || !deleted || blindStart) {
		if !c.present {
			return c, "a write left no entry"
		}
		c.ops = append(slices.Clone(c.ops), &written{kind: a.op.Kind, amount: a.op.Amount, number: a.number})
		c.ops = k.withStart(c.ops)
		known = c.ops
	}
	if got.Known == c.blind {
		return c, fmt.Sprintf("%v: known is %v", a.op, got.Known)
	}
	return c, k.wrong(known, a)
}

// wrong returns why the result of an attempt is wrong, if known is the history of the counter.
func (k *modelKey) wrong(known history, a attempt) string {
	got := a.result.Counter
	if !got.Known {
		return ""
	}
	value, deleted := known.state()
	exists := !deleted && a.op.Kind != counter.Delete
	if !known.may(got.Version) || got.Exists != exists || (exists && got.Value != value) {
		return fmt.Sprintf("%v was answered %+v; want value %d, version %d", a.op, got, value, len(known))
	}
	if got.Synced && !known.within(k.row) {
		return fmt.Sprintf("%v was answered as synced, but postgres has %v of %v", a.op, k.row, known)
	}
	return ""
}

// settle determines the entry after a step, and returns why it is wrong.
func (k *modelKey) settle(o observed, attempts []attempt) string {
	var why []string
	for _, base := range k.bases() {
		c, problem := k.after(base, attempts)
		if problem != "" {
			why = append(why, problem)
			continue
		}
		if o.is(c) {
			k.must = k.must.union(c.ops)
			k.entry, k.rewind = c, nil
			k.date(o)
			return ""
		}
	}
	return fmt.Sprintf("redis has %+v, which is neither %v nor that and what postgres had (%v), with %v on top (%s)",
		o, k.entry, k.rows, attempts, strings.Join(why, "; "))
}

// date records the epoch in which the operations of this step were applied.
func (k *modelKey) date(o observed) {
	for _, w := range k.entry.ops {
		if w.epoch == 0 && o.present {
			w.epoch, w.first = o.epoch, o.shard.first
		}
	}
}

// broken returns which rule the state of the key breaks. lossy: Redis has lost writes before.
func (k *modelKey) broken(o observed, lossy bool) string {
	have := k.entry.ops.union(k.row)
	switch {
	case !k.must.within(have):
		return fmt.Sprintf("lost: redis has %v, postgres %v, of %v", k.entry, k.row, k.must)
	case !have.within(k.must):
		return fmt.Sprintf("came back: redis has %v, postgres %v, of %v", k.entry, k.row, k.must)
	case o.dirty() && o.ttl != -1:
		return fmt.Sprintf("dirty, but it expires in %d ms", o.ttl)
	case o.records > 0 && !o.dirty():
		return fmt.Sprintf("clean, but it has %d records", o.records)
	case o.blind && !o.dirty():
		return "blind writes, and not dirty"
	case o.present && !o.dirty() && !k.entry.ops.within(k.row):
		return fmt.Sprintf("clean, but redis has %v and postgres %v", k.entry, k.row)
	case o.checked() && !k.floor.within(k.entry.ops):
		return fmt.Sprintf("a read goes back: redis has %v, and postgres had %v when redis was restarted", k.entry, k.floor)
	case !lossy && k.entry.present && !k.entry.blind && !k.entry.ops.same(k.must) && !k.unadopted():
		return fmt.Sprintf("a read misses something: redis has %v of %v", k.entry, k.must)
	}
	// Flushed keys may leave a sealed epoch before its commit.
	done := o.epoch <= o.shard.sealed && k.entry.ops.within(k.row)
	if problem := o.misplaced(); problem != "" && !done {
		return problem
	}
	return k.unsynced(o)
}

// withStart adds the value of the column to the operations of an entry that was hydrated without the mapping, if it does not matter any
// more: the counter was set or deleted.
func (k *modelKey) withStart(ops history) history {
	overwritten := slices.ContainsFunc(ops, func(w *written) bool { return w.kind != counter.Increment })
	if overwritten && len(k.row) > 0 && k.row[0].start() {
		return ops.union(k.row[:1])
	}
	return ops
}

// unadopted reports whether the entry lacks only the value of the column: it was hydrated without the mapping, and its first flush adds it.
func (k *modelKey) unadopted() bool {
	return len(k.must) > 0 && k.must[0].start() && k.entry.ops.same(k.must[1:]) && k.seen == counter.Row{}
}

// misplaced returns why no flush would find the key although it is dirty.
func (o observed) misplaced() string {
	switch aside := o.retry || o.dead; {
	case o.retry && o.dead:
		return "it waits for a retry, and is dead"
	case o.present && aside != o.aside:
		return fmt.Sprintf("set aside is %v, but the key: %+v", o.aside, o)
	case o.dirty() && !o.aside && !o.open && !o.sealed:
		return fmt.Sprintf("dirty for ever: in no epoch: %+v", o)
	}
	return ""
}

// unsynced returns an operation that package writepath would call synced although Postgres does not have it.
func (k *modelKey) unsynced(o observed) string {
	for _, w := range k.must {
		passed := w.epoch != 0 && w.first == o.shard.first && w.epoch <= o.shard.watermark
		if passed && !o.shard.aside && o.shard.requeued <= w.epoch && !k.row.has(w) {
			return fmt.Sprintf("synced: the watermark has passed operation %d (%+v), but postgres has %v", w.number, *w, k.row)
		}
	}
	return ""
}
