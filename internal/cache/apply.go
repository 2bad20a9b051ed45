package cache

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// maxSum bounds the sum of combined increments: apply.lua calculates fast within it.
	maxSum = 1e13

	// maxAddend bounds each combined increment, so that no sum of a call exceeds maxSum, and no intermediate value overflows unnoticed.
	maxAddend = maxSum / (2 * MaxWrites)
)

// The increments in an Operation with a Count are within the bound for one.
var _ = [1]struct{}{}[counter.MaxCombined-maxAddend]

// application builds one call of apply.lua; on a cluster, one call for each shard, in one pipeline.
type application struct {
	ctx      context.Context //nolint:containedctx // it carries a trace, and never ends
	cache    *Cache
	client   redis.Cmdable // the Cache's, or a connection
	mayDirty bool
	apart    bool // increments are not combined
	writes   []*Write
	outcomes []*Outcome

	// group fills these: it links the writes of each key in their order, and sorts the keys by shard.
	keys  []keyWrites
	next  []int32 // by write: the next write of its key; -1: none
	steps []step
	names []string

	origins []*counter.Origin // of recorded operations, in the order of their arguments
}

// keyWrites are the writes of one key, linked by application.next.
type keyWrites struct {
	shard       counter.Shard
	first, last int32
	recorded    bool // its operations are recorded, so none are combined
}

// step is one line of apply.lua's reply: one write, or several combined increments of one key.
type step struct {
	shard  int32 // its position among the shards of the call
	write  int32
	writes int32
	count  int64 // of increments: a write may stand for several
	sum    int64

	recorded bool
}

func (a *application) add(w *Write, o *Outcome) {
	a.writes = append(a.writes, w)
	a.outcomes = append(a.outcomes, o)
}

// run sends the writes, fills in the outcomes, and reports whether Redis was reached. The client's time-outs bound it, because its callers
// have different contexts.
func (a *application) run() (reached bool) {
	if len(a.writes) == 0 {
		return true
	}
	if a.cache.cluster {
		return a.runByShard()
	}
	args := a.encode()
	reply, err := applyScript.Run(a.ctx, a.client, a.names, args...).Text()
	if isWrongType(err) && a.keys[0].shard != a.keys[len(a.keys)-1].shard {
		return a.runByShard() // a corrupt shard must not fail the others
	}
	return a.finish(reply, err)
}

// finish fills in the outcomes. It resends combined increments that must be split, and reads that Redis refused together with writes.
// Increments that the caller has added up are for the caller to split: the amounts of the single ones are not known here.
func (a *application) finish(reply string, err error) (reached bool) {
	reached = a.settle(reply, err)
	for i, o := range a.outcomes {
		if o.split && a.writes[i].Count > 1 {
			*o = Outcome{Err: notCombined()}
		}
	}
	a.runAgain(func(_ *Write, o *Outcome) bool { return o.split }, true)
	if IsFull(err) { // Redis refused the reads together with the writes
		a.runAgain(func(w *Write, _ *Outcome) bool { return w.Kind == counter.Get }, a.apart)
	}
	return reached
}

// runAgain resends the writes that match, unless that would repeat the same call.
func (a *application) runAgain(match func(*Write, *Outcome) bool, apart bool) {
	again := application{ctx: a.ctx, cache: a.cache, client: a.client, mayDirty: a.mayDirty, apart: apart}
	for i, o := range a.outcomes {
		if match(a.writes[i], o) {
			again.add(a.writes[i], o)
		}
	}
	if len(again.writes) > 0 && (len(again.writes) < len(a.writes) || apart != a.apart) {
		again.run()
	}
}

// runByShard makes one call for each shard, so that an unreachable node of a cluster fails only its own shards.
func (a *application) runByShard() (reached bool) {
	parts := make(map[counter.Shard]*application)
	for i, w := range a.writes {
		shard := a.cache.Shard(w.Key)
		if parts[shard] == nil {
			parts[shard] = &application{ctx: a.ctx, cache: a.cache, client: a.client, mayDirty: a.mayDirty, apart: a.apart}
		}
		parts[shard].add(w, a.outcomes[i])
	}
	pipe := a.client.Pipeline()
	calls := make(map[*application]*call, len(parts))
	for _, part := range parts {
		args := part.encode()
		c := &call{script: applyScript, keys: part.names, args: args}
		c.queue(a.ctx, pipe)
		calls[part] = c
	}
	_ = send(a.ctx, pipe) // each call has its own error
	for part, c := range calls {
		reply, err := c.reply(a.ctx, a.client).Text()
		reached = part.finish(reply, err) || reached
	}
	return reached
}

// group finds the writes of each key and sorts the keys by shard.
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
		a.keys = append(a.keys, keyWrites{
			shard: a.cache.Shard(w.Key), first: int32(i), last: int32(i), recorded: a.cache.Recorded(w.Key),
		})
	}
	slices.SortStableFunc(a.keys, func(x, y keyWrites) int { return int(x.shard) - int(y.shard) })
}

// encode returns the arguments of apply.lua, and sets names to its keys.
func (a *application) encode() []any {
	a.group()
	a.origins = a.origins[:0]
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
	args := []any{mayDirty, a.cache.recordTTL, counts, ops}
	if len(a.origins) > 0 {
		args = append(args, itoa(a.cache.room))
		for _, origin := range a.origins {
			args = append(args, encodeOrigin(origin))
		}
	}
	return args
}

// appendKey appends the operations of one key in the form of apply.lua, and their steps.
func (a *application) appendKey(ops []byte, k keyWrites, shard int32) []byte {
	for i := k.first; i >= 0; {
		if i != k.first {
			ops = append(ops, ',')
		}
		s := step{
			shard: shard, write: i, writes: 1, count: int64(a.writes[i].Increments()), sum: a.writes[i].Amount, recorded: k.recorded,
		}
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

// adds combines the increment next with s, whose first write is first, and reports whether they can be combined.
func (a *application) adds(s *step, first, next *Write) bool {
	if a.apart || s.recorded || !first.plain() || !next.plain() || first.Blind != next.Blind || first.Accept != next.Accept {
		return false
	}
	if !within(first.Amount, maxAddend) || !within(next.Amount, maxAddend) {
		return false
	}
	s.sum += next.Amount // step: sum
	s.count += int64(next.Increments())
	s.writes++
	return true
}

// plain reports whether the operation may be combined with others.
func (w *Write) plain() bool { return w.Kind == counter.Increment && w.ID == "" && w.Condition == nil }

func within(n, bound int64) bool { return -bound <= n && n <= bound }

// appendStep appends an operation in the form of apply.lua.
func (a *application) appendStep(ops []byte, s *step) []byte {
	w := a.writes[s.write]
	if w.Accept {
		ops = append(ops, '!')
	}
	if s.recorded && w.Kind != counter.Get {
		ops = a.appendOrigin(ops, w.Origin)
	}
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
	if s.count > 1 {
		ops = append(ops, '*')
		ops = strconv.AppendInt(ops, s.count, 10)
	}
	if w.Condition != nil {
		ops = appendCondition(ops, w.Condition)
	}
	return ops
}

// appendOrigin appends the mark of a recorded operation. Operations of one request share an argument.
func (a *application) appendOrigin(ops []byte, origin *counter.Origin) []byte {
	const before = 5 // arguments
	if last := len(a.origins) - 1; last < 0 || a.origins[last] != origin {
		a.origins = append(a.origins, origin)
	}
	ops = strconv.AppendInt(append(ops, '^'), int64(before+len(a.origins)), 10)
	return append(ops, ':')
}

// appendCondition appends a condition in the form of apply.lua.
func appendCondition(ops []byte, c *counter.Condition) []byte {
	ops = append(ops, '?')
	if !c.Unbounded() {
		ops = strconv.AppendInt(append(ops, 'm'), c.Min, 10)
		ops = strconv.AppendInt(append(ops, 'M'), c.Max, 10)
	}
	switch {
	case c.Version != 0:
		ops = strconv.AppendInt(append(ops, 'v'), c.Version, 10)
	case c.Exists:
		ops = append(ops, 'e')
	case c.Absent:
		ops = append(ops, 'n')
	}
	return ops
}

// letters are the kinds of operations in the form of apply.lua.
var letters = [...]byte{counter.Get: 'g', counter.Increment: 'i', counter.Set: 's', counter.Delete: 'd'}

// settle fills in the outcomes from the reply or the error of apply.lua, and reports whether Redis answered.
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

// settleStep gives each write of a step its own outcome. A combined increment gets the state of the counter right after it.
func (a *application) settleStep(s *step, line string, h *head) {
	w := a.writes[s.write]
	if w.Kind == counter.Get && isEntry(line) {
		*a.outcomes[s.write] = decodeRead(w.Key, line, h)
		return
	}
	o := decodeOutcome(line, s.count, h)
	if s.writes == 1 {
		*a.outcomes[s.write] = o
		return
	}
	value, version := o.Value-s.sum, o.Version-s.count // step: split
	for i, left := s.write, s.writes; left > 0; i, left = a.next[i], left-1 {
		if o.Err == nil && o.Known {
			value += a.writes[i].Amount
			version += int64(a.writes[i].Increments())
			o.Value, o.Version = value, version
		}
		*a.outcomes[i] = o
		o.Backlog = 0
	}
}
