package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxSum bounds what increments amount to that are added up: apply.lua calculates fast within it.
	maxSum = 1e13

	// maxAddend bounds each of them, so that no sum of a call gets past maxSum, and none in between overflows unseen.
	maxAddend = maxSum / (2 * MaxWrites)
)

// application is one call of apply.lua in the making: on a cluster, one call for each shard, in one pipeline.
type application struct {
	ctx      context.Context //nolint:containedctx // it carries a trace, and never ends
	cache    *Cache
	mayDirty bool
	apart    bool // increments are not added up
	writes   []*Write
	outcomes []*Outcome

	// What follows is made by group: the writes of one key follow each other, in their order, and those of one shard.
	keys  []keyWrites
	next  []int32 // by write: the next of its key; -1: none
	steps []step
	names []string
}

// keyWrites is the writes of one key.
type keyWrites struct {
	shard       counter.Shard
	first, last int32
}

// step is what apply.lua answers with one line: one write, or several increments that are added up.
type step struct {
	shard  int32 // its place among the shards of the call
	write  int32
	writes int32
	sum    int64
}

func (a *application) add(w *Write, o *Outcome) {
	a.writes = append(a.writes, w)
	a.outcomes = append(a.outcomes, o)
}

// run sends what has been added, fills in the outcomes, and reports whether Redis was reached. The call is bounded by the
// client's time-outs, not by a context: those of the callers differ.
func (a *application) run() (reached bool) {
	if len(a.writes) == 0 {
		return true
	}
	if a.cache.cluster {
		return a.runByShard()
	}
	args := a.encode()
	reply, err := applyScript.Run(a.ctx, a.cache.client, a.names, args...).Text()
	if isWrongType(err) && a.keys[0].shard != a.keys[len(a.keys)-1].shard {
		return a.runByShard() // somebody's data in one shard costs the others nothing
	}
	return a.finish(reply, err)
}

// finish settles the outcomes and sends again what has to be.
func (a *application) finish(reply string, err error) (reached bool) {
	reached = a.settle(reply, err)
	a.runAgain(func(_ *Write, o *Outcome) bool { return o.split }, true)
	if isFull(err) { // it refuses reads together with writes
		a.runAgain(func(w *Write, _ *Outcome) bool { return w.Kind == counter.Get }, a.apart)
	}
	return reached
}

// runAgain sends those writes again for which match is true, unless these are all and nothing would be different.
func (a *application) runAgain(match func(*Write, *Outcome) bool, apart bool) {
	again := application{ctx: a.ctx, cache: a.cache, mayDirty: a.mayDirty, apart: apart}
	for i, o := range a.outcomes {
		if match(a.writes[i], o) {
			again.add(a.writes[i], o)
		}
	}
	if len(again.writes) > 0 && (len(again.writes) < len(a.writes) || apart != a.apart) {
		again.run()
	}
}

// runByShard makes one call for each shard: one node of a cluster that cannot be reached says nothing about the others.
func (a *application) runByShard() (reached bool) {
	parts := make(map[counter.Shard]*application)
	for i, w := range a.writes {
		shard := a.cache.Shard(w.Key)
		if parts[shard] == nil {
			parts[shard] = &application{ctx: a.ctx, cache: a.cache, mayDirty: a.mayDirty, apart: a.apart}
		}
		parts[shard].add(w, a.outcomes[i])
	}
	pipe := a.cache.client.Pipeline()
	calls := make(map[counter.Shard]*redis.Cmd, len(parts))
	for shard, part := range parts {
		args := part.encode()
		calls[shard] = applyScript.EvalSha(a.ctx, pipe, part.names, args...)
	}
	_ = send(a.ctx, pipe) // each call has its own error
	for shard, part := range parts {
		reply, err := calls[shard].Text()
		if redis.HasErrorPrefix(err, "NOSCRIPT") { // this node has not seen it yet
			args := part.encode()
			reply, err = applyScript.Eval(a.ctx, a.cache.client, part.names, args...).Text()
		}
		reached = part.finish(reply, err) || reached
	}
	return reached
}

// group finds the writes of each key, and puts keys of one shard side by side.
func (a *application) group() {
	a.keys = a.keys[:0]
	a.next = slices.Grow(a.next[:0], len(a.writes))
	places := make(map[counter.Key]int32, len(a.writes))
	for i, w := range a.writes {
		a.next = append(a.next, -1)
		if place, found := places[w.Key]; found {
			k := &a.keys[place]
			a.next[k.last], k.last = int32(i), int32(i)
			continue
		}
		places[w.Key] = int32(len(a.keys)) //nolint:gosec // MaxWrites bounds them
		a.keys = append(a.keys, keyWrites{shard: a.cache.Shard(w.Key), first: int32(i), last: int32(i)})
	}
	slices.SortStableFunc(a.keys, func(x, y keyWrites) int { return int(x.shard) - int(y.shard) })
}

// encode makes the keys (names) and arguments of apply.lua.
func (a *application) encode() []any {
	a.group()
	a.steps = slices.Grow(a.steps[:0], len(a.writes))
	a.names = slices.Grow(a.names[:0], len(a.keys)+8)
	var shards []counter.Shard
	counts, in := make([]byte, 0, 64), 0
	for i, k := range a.keys {
		a.names = append(a.names, a.cache.prefixes[k.shard]+string(a.writes[k.first].Key))
		in++
		if i+1 == len(a.keys) || a.keys[i+1].shard != k.shard {
			shards = append(shards, k.shard)
			counts = append(strconv.AppendInt(counts, int64(in), 10), ' ')
			in = 0
		}
	}
	for _, s := range shards {
		a.names = append(a.names, a.cache.metaKey(s), a.cache.openKey(s))
	}
	ops, place := make([]byte, 0, 4*len(a.writes)), int32(0)
	for _, k := range a.keys {
		if shards[place] != k.shard {
			place++
		}
		ops = append(a.appendKey(ops, k, place), ' ')
	}
	mayDirty := "0"
	if a.mayDirty {
		mayDirty = "1"
	}
	return []any{mayDirty, a.cache.recordTTL, counts, ops}
}

// appendKey appends the operations of one key, as apply.lua reads them, and notes their steps.
func (a *application) appendKey(ops []byte, k keyWrites, shard int32) []byte {
	for i := k.first; i >= 0; {
		if i != k.first {
			ops = append(ops, ',')
		}
		s := step{shard: shard, write: i, writes: 1, sum: a.writes[i].Amount}
		last := i
		for next := a.next[i]; next >= 0 && a.adds(&s, a.writes[i], a.writes[next]); next = a.next[next] {
			last = next
		}
		a.steps = append(a.steps, s)
		ops = a.appendStep(ops, &s)
		i = a.next[last]
	}
	return ops
}

// adds puts the increment next on top of s, which begins with first, if that may be.
func (a *application) adds(s *step, first, next *Write) bool {
	if a.apart || !first.plain() || !next.plain() || first.Blind != next.Blind {
		return false
	}
	if !within(first.Amount, maxAddend) || !within(next.Amount, maxAddend) {
		return false
	}
	s.sum += next.Amount // step: sum
	s.writes++
	return true
}

// plain reports that the operation may be added up with others.
func (w *Write) plain() bool { return w.Kind == counter.Increment && w.ID == "" }

func within(n, bound int64) bool { return -bound <= n && n <= bound }

// appendStep appends an operation as apply.lua reads it.
func (a *application) appendStep(ops []byte, s *step) []byte {
	w := a.writes[s.write]
	if w.ID != "" {
		a.names = append(a.names, a.cache.recordKey(w.Key, w.ID))
		ops = append(ops, '#')
		ops = strconv.AppendInt(ops, int64(len(a.names)), 10)
		ops = append(ops, ':')
	}
	small := w.plain() && within(s.sum, maxSum)
	if !small || w.Blind {
		letter := letters[w.Kind]
		if w.Blind && w.Kind != counter.Get {
			letter -= 'a' - 'A'
		}
		ops = append(ops, letter)
	}
	if w.Kind == counter.Increment || w.Kind == counter.Set {
		ops = strconv.AppendInt(ops, s.sum, 10)
	}
	if s.writes > 1 {
		ops = append(ops, '*')
		ops = strconv.AppendInt(ops, int64(s.writes), 10)
	}
	return ops
}

// letters are the kinds of operations in apply.lua.
var letters = [...]byte{counter.Get: 'g', counter.Increment: 'i', counter.Set: 's', counter.Delete: 'd'}

// head is what apply.lua says of a shard.
type head struct {
	epoch, watermark, first int64
	keys                    int64
	token                   string
}

func decodeHead(line string) (head, error) {
	open, rest, _ := strings.Cut(line, " ")
	watermark, rest, _ := strings.Cut(rest, " ")
	first, keys, _ := strings.Cut(rest, " ")
	var f fields
	h := head{epoch: f.id(open), watermark: f.id(watermark), first: f.id(first), keys: f.parse(keys), token: watermark + ":" + open}
	return h, f.err
}

// settle fills in the outcomes from the reply of apply.lua, or from its error, and reports whether Redis answered.
func (a *application) settle(reply string, err error) (answer bool) {
	if err != nil {
		problem := writeError(err)
		for _, o := range a.outcomes {
			*o = Outcome{Err: problem}
		}
		return isReply(err)
	}
	var heads []head
	var line string
	for range a.steps[len(a.steps)-1].shard + 1 {
		line, reply, _ = strings.Cut(reply, "\n")
		h, err := decodeHead(line)
		if err != nil {
			return a.settle("", fmt.Errorf("reply of apply.lua %q: %w", line, err))
		}
		heads = append(heads, h)
	}
	for i := range a.steps {
		line, reply, _ = strings.Cut(reply, "\n")
		s := &a.steps[i]
		a.settleStep(s, line, &heads[s.shard])
	}
	return true
}

// settleStep gives each write of a step its own outcome: those that were added up take turns.
func (a *application) settleStep(s *step, line string, h *head) {
	w := a.writes[s.write]
	if w.Kind == counter.Get && isEntry(line) {
		*a.outcomes[s.write] = decodeRead(w.Key, line, h)
		return
	}
	o := decodeOutcome(line, s.writes, h)
	if s.writes == 1 {
		*a.outcomes[s.write] = o
		return
	}
	value, version := o.Value-s.sum, o.Version-int64(s.writes) // step: split
	for i, left := s.write, s.writes; left > 0; i, left = a.next[i], left-1 {
		if o.Err == nil && o.Known {
			value += a.writes[i].Amount
			version++
			o.Value, o.Version = value, version
		}
		*a.outcomes[i] = o
		o.Backlog = 0
	}
}

var errEntry = errors.New("the entry in redis is not a counter's: something else wrote to its key")

// decodeOutcome reads one line of the reply of apply.lua, whose head lists them. writes is how many are added up in it.
func decodeOutcome(line string, writes int32, h *head) Outcome {
	if isEntry(line) {
		return decodeApplied(line, writes, h)
	}
	line, replayed := strings.CutPrefix(line, "r ")
	line, joined := strings.CutSuffix(line, " +")
	letter, rest, _ := strings.Cut(line, " ")
	f := fields{rest: rest}
	o := Outcome{Replayed: replayed, Epoch: h.epoch, First: h.first}
	if joined {
		o.Backlog = h.keys
	}
	switch letter {
	case "a":
		o.Value, o.Version, o.Known, o.Exists = f.int(), f.int(), true, true
	case "u":
		o.Exists = true
	case "k":
		o.Value, o.Version, o.Synced, o.Known, o.Exists = f.int(), f.int(), f.int() == 1, true, true
	case "n":
		o.Version, o.Synced, o.Known = f.int(), f.int() == 1, true
	case "c", "w":
		o.Cold, o.Token, o.BlindWrites = true, h.token, letter == "w"
	case "d":
		return Outcome{split: true, Err: unreadable(line, errors.New("not sent one by one"))}
	default:
		return Outcome{Err: notApplied(letter, line)}
	}
	switch {
	case f.err == nil:
		return o
	case letter == "k", letter == "n":
		return Outcome{Err: &counter.Error{Code: counter.CodeInternal, Err: errEntry}}
	}
	return Outcome{Err: unreadable(line, f.err)}
}

// isEntry tells an entry from the other lines, which begin with a letter.
func isEntry(line string) bool { return line != "" && line[0] <= '9' }

// decodeRead reads the entry that a read has found.
func decodeRead(key counter.Key, line string, h *head) Outcome {
	e := decodeEntry(key, line)
	switch {
	case e.Corrupt:
		return Outcome{Err: &counter.Error{Code: counter.CodeInternal, Err: errEntry}}
	case e.BaseUnknown:
		return Outcome{Cold: true, BlindWrites: true, Token: h.token}
	}
	return Outcome{
		Value: e.Value, Version: e.Version, Exists: !e.Deleted, Known: true, Synced: !e.Dirty(h.watermark),
		Epoch: h.epoch, First: h.first,
	}
}

// decodeApplied reads the entry that plain increments have made.
func decodeApplied(line string, writes int32, h *head) Outcome {
	f := fields{rest: line}
	o := Outcome{Known: true, Exists: true, Epoch: h.epoch, First: h.first}
	o.Value, o.Version = f.int(), f.int()
	if f.err != nil {
		return Outcome{Err: unreadable(line, f.err)}
	}
	if _, rest, found := strings.Cut(f.rest, " b"); found && !strings.Contains(f.rest, " l") {
		base, _, _ := strings.Cut(rest, " ")
		if f.parse(base) == o.Version-int64(writes) {
			o.Backlog = h.keys
		}
	}
	return o
}

// notApplied is the error of an operation that apply.lua answers with a letter alone.
func notApplied(letter, line string) *counter.Error {
	switch letter {
	case "o":
		return Overflow()
	case "b":
		return &counter.Error{
			Code: counter.CodeBackpressure, RetryAfter: retryAfter,
			Detail: "too many counters wait to be written to Postgres; the operation was not applied",
		}
	case "e":
		return &counter.Error{Code: counter.CodeInternal, Err: errEntry}
	case "m":
		return &counter.Error{
			Code:   counter.CodeIdempotencyKeyReused,
			Detail: "another operation on this counter had the same idempotency key; this one was not applied",
		}
	}
	return unreadable(line, errors.New("unknown letter"))
}

// unreadable is the error of an operation whose line makes no sense.
func unreadable(line string, err error) *counter.Error {
	return &counter.Error{
		Code: counter.CodeOutcomeUnknown, Err: fmt.Errorf("reply of apply.lua %q: %w", line, err),
		Detail: "the answer of Redis could not be read: the operation may or may not have been applied",
	}
}

// Overflow is the error of an operation whose sum does not fit into 64 bits.
func Overflow() *counter.Error {
	return &counter.Error{
		Code:   counter.CodeOverflow,
		Detail: "the value would leave the range of a signed 64-bit integer; the operation was not applied",
	}
}
