package cache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// application is one call of apply.lua in the making: on a cluster, one call for each shard, in one pipeline.
type application struct {
	ctx      context.Context //nolint:containedctx // it carries a trace, and never ends
	cache    *Cache
	mayDirty bool
	writes   []*Write
	outcomes []*Outcome
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
	keys, args := a.encode()
	reached = a.settle(applyScript.Run(a.ctx, a.cache.client, keys, args...).Text())
	a.readAgain()
	return reached
}

// readAgain sends the reads again that a Redis which is full refused together with writes.
func (a *application) readAgain() {
	reads := application{ctx: a.ctx, cache: a.cache}
	for i, o := range a.outcomes {
		if a.writes[i].Kind == counter.Get && counter.CodeOf(o.Err) == counter.CodeCacheFull {
			reads.add(a.writes[i], o)
		}
	}
	if len(reads.writes) == 0 || len(reads.writes) == len(a.writes) {
		return
	}
	keys, args := reads.encode()
	reads.settle(applyScript.Run(a.ctx, a.cache.client, keys, args...).Text())
}

// runByShard is run on a cluster: one node that cannot be reached says nothing about the others.
func (a *application) runByShard() (reached bool) {
	ctx := a.ctx
	parts := make(map[counter.Shard]*application)
	for i, w := range a.writes {
		shard := a.cache.Shard(w.Key)
		if parts[shard] == nil {
			parts[shard] = &application{ctx: ctx, cache: a.cache, mayDirty: a.mayDirty}
		}
		parts[shard].add(w, a.outcomes[i])
	}
	pipe := a.cache.client.Pipeline()
	calls := make(map[counter.Shard]*redis.Cmd, len(parts))
	for shard, part := range parts {
		keys, args := part.encode()
		calls[shard] = applyScript.EvalSha(ctx, pipe, keys, args...)
	}
	_ = send(ctx, pipe) // each call has its own error
	for shard, part := range parts {
		reply, err := calls[shard].Text()
		if redis.HasErrorPrefix(err, "NOSCRIPT") { // this node has not seen it yet
			keys, args := part.encode()
			reply, err = applyScript.Eval(ctx, a.cache.client, keys, args...).Text()
		}
		reached = part.settle(reply, err) || reached
		part.readAgain()
	}
	return reached
}

// encode makes the arguments of apply.lua.
func (a *application) encode() (keys []string, args []any) {
	keys = make([]string, len(a.writes), len(a.writes)+shardKeys)
	for i, w := range a.writes {
		keys[i] = a.cache.entryKey(w.Key)
	}
	if a.cache.cluster {
		keys = append(keys, a.cache.declared(a.writes[0].Key)...)
	}
	ops := make([]byte, 0, 8*len(a.writes))
	for _, w := range a.writes {
		if w.ID != "" {
			keys = append(keys, a.cache.recordKey(w.Key, w.ID))
			ops = append(ops, '#')
			ops = strconv.AppendInt(ops, int64(len(keys)), 10)
			ops = append(ops, ':')
		}
		ops = appendWrite(ops, w)
	}
	mayDirty := "0"
	if a.mayDirty {
		mayDirty = "1"
	}
	return keys, []any{mayDirty, a.cache.recordTTL, len(a.writes), ops}
}

// appendWrite appends an operation as apply.lua reads it, and what separates it from the next.
func appendWrite(ops []byte, w *Write) []byte {
	letter := letters[w.Kind]
	if w.Blind && w.Kind != counter.Get {
		letter -= 'a' - 'A'
	}
	ops = append(ops, letter)
	if w.Kind == counter.Increment || w.Kind == counter.Set {
		ops = strconv.AppendInt(ops, w.Amount, 10)
	}
	return append(ops, ' ')
}

// letters are the kinds of operations in apply.lua.
var letters = [...]byte{counter.Get: 'g', counter.Increment: 'i', counter.Set: 's', counter.Delete: 'd'}

// settle fills in the outcomes from the reply of apply.lua, or from its error, and reports whether Redis answered.
func (a *application) settle(reply string, err error) (answer bool) {
	if err != nil {
		problem := writeError(err)
		for _, o := range a.outcomes {
			*o = Outcome{Err: problem}
		}
		return answered(err)
	}
	for _, o := range a.outcomes {
		var line string
		line, reply, _ = strings.Cut(reply, "\n")
		*o = decodeOutcome(line)
	}
	return true
}

var errEntry = errors.New("the entry in redis is not a counter's: something else wrote to its key")

// decodeOutcome reads one line of the reply of apply.lua, whose head lists them.
func decodeOutcome(line string) Outcome {
	line, replayed := strings.CutPrefix(line, "r ")
	letter, rest, _ := strings.Cut(line, " ")
	f := fields{rest: rest}
	o := Outcome{Replayed: replayed}
	switch letter {
	case "a":
		o.Value, o.Version, o.Backlog, o.Known, o.Exists = f.int(), f.int(), f.int(), true, true
	case "u":
		o.Backlog, o.Exists = f.int(), true
	case "k":
		o.Value, o.Version, o.Synced, o.Known, o.Exists = f.int(), f.int(), f.int() == 1, true, true
	case "n":
		o.Version, o.Synced, o.Known = f.int(), f.int() == 1, true
	case "c", "w":
		o.Cold, o.Generation, o.BlindWrites = true, rest, letter == "w"
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
	case "t":
		return &counter.Error{
			Code: counter.CodeCacheUnavailable, RetryAfter: retryAfter,
			Detail: "Redis cannot reach the counter now; the operation was not applied",
		}
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

// fields reads integers separated by single spaces and remembers the first error.
type fields struct {
	rest string
	err  error
}

func (f *fields) int() int64 {
	var word string
	word, f.rest, _ = strings.Cut(f.rest, " ")
	return f.parse(word)
}

func (f *fields) parse(word string) int64 {
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil && f.err == nil {
		f.err = err
	}
	return n
}
