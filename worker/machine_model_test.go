package worker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// The model of the machine: what a counter is, as a list of the operations that it is made of. Redis has one such list of
// each key, Postgres another, and every rule is about how the two may change.

// written is an operation that was acknowledged. Each has an amount of its own (see slot), so a value tells which
// operations are in it, and how often.
type written struct {
	kind   counter.Kind
	amount int64
	number int // in the order of acknowledgement
}

// history is the operations that a state is made of, in order.
type history []*written

// state is the value of a counter that has seen h, and whether it is deleted (or was never written).
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

// union is the rule of every merge: all operations that either has, once, in order.
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

// within reports whether other has every operation of h.
func (h history) within(other history) bool {
	return !slices.ContainsFunc(h, func(w *written) bool { return !slices.Contains(other, w) })
}

func (h history) same(other history) bool { return len(h) == len(other) && h.within(other) }

func (h history) String() string {
	words := make([]string, len(h))
	for i, w := range h {
		words[i] = fmt.Sprintf("%s#%d", string("?gisd"[w.kind]), w.number)
	}
	return "[" + strings.Join(words, " ") + "]"
}

// cell is what Redis has of a key.
type cell struct {
	present bool
	blind   bool // ops are counted from a base that only Postgres knows
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

// modelKey is what the model knows of a key.
type modelKey struct {
	entry cell
	row   history
	rows  []history // that Postgres has ever had, the empty one first
	must  history   // what neither Redis nor Postgres may lose: whatever was acknowledged, and not lost by a rollback

	seen counter.Row // row, as it was read last
	used int         // amounts given out
}

// observed is what the servers really have of a key.
type observed struct {
	present, blind, deleted, dirty bool
	value, version                 int64
	ttl                            int64 // ms; -1 none, -2 no entry
}

// is reports whether o is what c says.
func (o observed) is(c cell) bool {
	if o.present != c.present {
		return false
	}
	if !c.present {
		return true
	}
	value, deleted := c.ops.state()
	return o.blind == c.blind && o.value == value && o.deleted == deleted && o.version == int64(len(c.ops))
}

// attempt is an operation that was sent, and what was answered.
type attempt struct {
	op     counter.Operation
	result counter.Result
	number int
	slow   bool // it was under way for some steps, and when it began the counter did not exist
}

// missed reports a read that found nothing in Postgres, and did not look into Redis again. If there was nothing when it began,
// it is right, whatever was written while it was under way.
func (a attempt) missed() bool {
	got := a.result.Counter
	return a.slow && a.op.Kind == counter.Get && got.Known && got.Version == 0
}

// bases are the states that an entry may have had before the attempts of a step: what it had; or, since a step may bring the
// base from Postgres or mend the entry, the union with what Postgres had at some time; or nothing but the attempts.
func (k *modelKey) bases() []cell {
	cells := []cell{k.entry}
	if !k.entry.present {
		cells = append(cells, cell{present: true, blind: true})
	}
	for _, row := range slices.Backward(k.rows) {
		cells = append(cells, cell{present: true, ops: k.entry.ops.union(row)})
	}
	return cells
}

// after returns the entry after the attempts, or why their answers do not fit.
func (k *modelKey) after(base cell, attempts []attempt) (cell, string) {
	c := base
	for _, a := range attempts {
		if a.result.Err != nil || a.missed() {
			continue // nothing may have changed
		}
		if a.result.Counter.Known && c.present && c.blind {
			c = cell{present: true, ops: c.ops.union(k.row)} // it brought the base in
		}
		known := c.ops
		if !c.present {
			known = k.row // only a get leaves it so
		}
		_, deleted := known.state()
		blindStart := c.blind && len(c.ops) == 0
		if a.op.Kind != counter.Get && (a.op.Kind != counter.Delete || !deleted || blindStart) {
			if !c.present {
				return c, "a write left no entry"
			}
			c.ops = append(slices.Clone(c.ops), &written{kind: a.op.Kind, amount: a.op.Amount, number: a.number})
			known = c.ops
		}
		got := a.result.Counter
		if got.Known == c.blind {
			return c, fmt.Sprintf("%v: known is %v", a.op, got.Known)
		}
		value, deleted := known.state()
		exists := !deleted && a.op.Kind != counter.Delete
		if got.Known && (got.Version != int64(len(known)) || got.Exists != exists || exists && got.Value != value) {
			return c, fmt.Sprintf("%v was answered %+v; want value %d, version %d", a.op, got, value, len(known))
		}
		if got.Known && got.Synced && !known.within(k.row) {
			return c, fmt.Sprintf("%v was answered as synced, but postgres has %v of %v", a.op, k.row, known)
		}
	}
	return c, ""
}

// settle finds out what a step has made of the entry, and returns why that must not be.
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
			k.entry = c
			return ""
		}
	}
	return fmt.Sprintf("redis has %+v, which is neither %v nor that and what postgres had (%v), with %v on top (%s)",
		o, k.entry, k.rows, attempts, strings.Join(why, "; "))
}

// broken returns which rule the state of the key breaks. lossy: Redis has lost something before.
func (k *modelKey) broken(o observed, lossy bool) string {
	have := k.entry.ops.union(k.row)
	switch {
	case !k.must.within(have):
		return fmt.Sprintf("lost: redis has %v, postgres %v, of %v", k.entry, k.row, k.must)
	case !have.within(k.must):
		return fmt.Sprintf("came back: redis has %v, postgres %v, of %v", k.entry, k.row, k.must)
	case o.dirty != (o.ttl == -1):
		return fmt.Sprintf("dirty is %v, and the TTL %d ms", o.dirty, o.ttl)
	case o.blind && !o.dirty:
		return "blind writes, and not dirty"
	case !o.dirty && !k.entry.ops.within(k.row):
		return fmt.Sprintf("clean, but redis has %v and postgres %v", k.entry, k.row)
	case !lossy && k.entry.present && !k.entry.blind && !k.entry.ops.same(k.must):
		return fmt.Sprintf("a read misses something: redis has %v of %v", k.entry, k.must)
	}
	return ""
}
