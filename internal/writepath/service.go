package writepath

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// maxHydrateTries bounds how often the bases of cold keys are read again because a flush was completed meanwhile, or the entry was evicted
// before its operation ran.
const maxHydrateTries = 3

// Bases reads the rows of keys from Postgres; a key without a row is not in the map. It must be bounded in time.
type Bases interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
}

// Hints receives keys that have just become dirty; backlog is the number of dirty keys of the shard. It must not block.
type Hints interface {
	Offer(ctx context.Context, key counter.Key, shard counter.Shard, backlog int64)
}

// Service carries out operations: see Open. It is safe for concurrent use.
type Service struct {
	cache  *cache.Cache
	writer *cache.Writer
	bases  Bases
	hints  Hints

	renewed    atomic.Int64
	waiters    *waiters
	durability Durability // of writes without one
	durable    map[Durability]func() *cache.Writer
	ends       []func() // close the parts, last first
}

// Renewed returns the number of entries that were older than their rows, because Redis had lost writes, and became the rows at their first
// use after its restart.
func (s *Service) Renewed() int64 { return s.renewed.Load() }

// StopWaiting ends all waits for Postgres at once, as if their time were over; later waits end at once. It stops the goroutines of the
// waits.
func (s *Service) StopWaiting() { s.waiters.close() }

// Options control how operations are carried out.
type Options struct {
	// Minimal: the client wants no value, so the base of a cold key is not read from Postgres.
	Minimal bool

	// Wait is how long to wait until Postgres has the writes, or the version that a Get read; Synced reports whether it has. 0: do not
	// wait.
	Wait time.Duration
	// Version is the version that a Get waits for instead.
	Version int64

	// Durability is where writes must be before Do returns. A write that does not get there within Wait (0: 2 s) is applied, but gets
	// CodeNotDurable. It does not affect a Get. With AsConfigured, Wait is for Postgres, and for both if more than memory is configured.
	Durability Durability
}

// Do carries out ops in order and returns one result for each; every Err is a *counter.Error. A counter that does not exist is no error:
// its Exists is false. Do blocks until Redis has answered (bounded by its client's time-outs) or ctx ends, for at most three bounded
// reads of Postgres if keys are cold, and then for Options.Wait at most.
func (s *Service) Do(ctx context.Context, ops []counter.Operation, options Options) []counter.Result {
	level := s.level(ops, &options)
	switch {
	case level == InPostgres:
		return s.doInPostgres(ctx, ops, options)
	case options.Wait > 0 && (level == InRedis || options.Durability == AsConfigured):
		return s.doAndWait(ctx, ops, options, level)
	case level != InRedis:
		return s.doDurably(ctx, ops, options, level)
	}
	return s.carryOut(ctx, ops, options, &route{writer: s.writer})
}

// mark is the epoch that a shard's watermark must reach before Postgres has a write; 0: unknown.
type mark struct{ epoch, first int64 }

// carryOut is Do without waiting. It sets the mark and the Confirmation of each operation, if the route has them.
func (s *Service) carryOut(ctx context.Context, ops []counter.Operation, options Options, r *route) []counter.Result {
	results := make([]counter.Result, len(ops))
	for start := 0; start < len(ops); start += cache.MaxWrites {
		end := min(start+cache.MaxWrites, len(ops))
		s.doPart(ctx, ops[start:end], options, results[start:end], r.part(start, end))
	}
	return results
}

// doPart carries out up to cache.MaxWrites operations in one call to Redis.
func (s *Service) doPart(ctx context.Context, ops []counter.Operation, options Options, results []counter.Result, r route) {
	p := part{
		Service: s, route: r, results: results,
		writes: make([]cache.Write, len(ops)), waiting: make([]int, len(ops)),
	}
	// Conditional operations wait for the base. So must the others, or they would overtake conditional ones on the same key.
	blind := options.Minimal && !slices.ContainsFunc(ops, func(op counter.Operation) bool { return op.Condition != nil })
	for i, op := range ops {
		p.writes[i] = cache.Write{Operation: op, Blind: blind && mayBeBlind(&op)}
		p.waiting[i] = i
	}
	p.run(ctx)
	for range maxHydrateTries {
		if len(p.waiting) == 0 {
			return
		}
		if !p.hydrate(ctx) {
			break
		}
		p.run(ctx)
	}
	p.runBlind(ctx)
}

// mayBeBlind reports whether an operation can be applied to an unknown base: it needs no present value.
func mayBeBlind(op *counter.Operation) bool { return op.Kind != counter.Get && op.Condition == nil }

// part holds the operations of one doPart.
type part struct {
	*Service
	route

	writes  []cache.Write
	results []counter.Result
	waiting []int           // the writes that have no result yet, in order
	cold    []cache.Outcome // the outcomes of the waiting writes: all are cold
}

// run sends the waiting writes. Cold ones keep waiting.
func (p *part) run(ctx context.Context) {
	if len(p.waiting) == 0 {
		return
	}
	writes := make([]cache.Write, len(p.waiting))
	for i, at := range p.waiting {
		writes[i] = p.writes[at]
	}
	outcomes := p.route.writer.DoUntil(ctx, writes, p.until)
	sent := p.waiting
	p.waiting, p.cold = nil, nil
	for i, at := range sent {
		if o := outcomes[i]; o.Cold {
			p.waiting = append(p.waiting, at)
			p.cold = append(p.cold, o)
		} else {
			p.settle(at, o)
			if key := p.writes[at].Key; o.Backlog > 0 {
				p.hints.Offer(ctx, key, p.cache.Shard(key), o.Backlog)
			}
		}
	}
}

func (p *part) settle(at int, o cache.Outcome) {
	key, kind := p.writes[at].Key, p.writes[at].Kind
	// A replayed operation belongs to an earlier epoch, and a repeated delete to none: the entry decides.
	if p.marks != nil && kind != counter.Get && !o.Replayed && o.Exists {
		p.marks[at] = mark{epoch: o.Epoch, first: o.First}
	}
	if p.confirmations != nil {
		p.confirmations[at] = o.Confirmation
	}
	p.results[at] = counter.Result{
		Err: o.Err, Replayed: o.Replayed, Existed: o.Exists && kind == counter.Delete,
		Counter: counter.Counter{
			Key: key, Value: o.Value, Version: o.Version, Known: o.Known, Synced: o.Synced,
			Exists: o.Exists && kind != counter.Delete,
		},
	}
}

// hydrate fills the entries of the cold keys from Postgres, or checks them, so that their operations can run again. It reports false if
// Postgres does not answer. A key whose column cannot be read stays cold.
func (p *part) hydrate(ctx context.Context) bool {
	cold := p.coldKeys()
	keys := make([]counter.Key, 0, len(cold))
	for key := range cold {
		keys = append(keys, key)
	}
	rows, err := p.bases.Read(ctx, keys)
	unread := store.Unread(err)
	if err != nil && len(unread) == 0 {
		return false
	}
	bases, unchecked := make([]cache.Base, 0, len(keys)), []cache.Base(nil)
	for _, key := range keys {
		if unread[key] {
			continue // it stays cold
		}
		row, found := rows[key]
		base := cache.Base{Key: key, Row: row, Found: found, Token: cold[key].token}
		switch {
		case cold[key].unchecked:
			unchecked = append(unchecked, base)
		case !cold[key].needed && !found:
			p.settleRead(key, row, found)
		default:
			bases = append(bases, base)
		}
	}
	p.hydrateBases(ctx, bases, cold)
	p.check(ctx, unchecked)
	return true
}

// check compares unchecked entries with their rows. If Redis fails, the operations find the entries unchecked again.
func (p *part) check(ctx context.Context, bases []cache.Base) {
	if len(bases) == 0 {
		return
	}
	results, _ := p.cache.Check(ctx, bases)
	for _, r := range results {
		if r == cache.Renewed {
			p.renewed.Add(1)
		}
	}
}

// settleRead answers the reads of key with its row.
func (p *part) settleRead(key counter.Key, row counter.Row, found bool) {
	p.settleWaiting(key, cache.Outcome{
		Value: row.Value, Version: row.Version, Exists: found && !row.Deleted, Known: true, Synced: true,
	})
}

type coldKey struct {
	token     string
	needed    bool // even without a row: it is written, or there are blind writes
	unchecked bool // it has a complete entry, which has to be compared with its row
}

func (p *part) coldKeys() map[counter.Key]coldKey {
	cold := make(map[counter.Key]coldKey, len(p.waiting))
	for i, at := range p.waiting {
		w := p.writes[at]
		c := cold[w.Key]
		c.token, c.unchecked = p.cold[i].Token, p.cold[i].Unchecked
		c.needed = c.needed || w.Kind != counter.Get || p.cold[i].BlindWrites
		cold[w.Key] = c
	}
	return cold
}

// hydrateBases hydrates bases, and settles the operations of keys that cannot be hydrated.
func (p *part) hydrateBases(ctx context.Context, bases []cache.Base, cold map[counter.Key]coldKey) {
	if len(bases) == 0 {
		return
	}
	done, err := p.cache.Hydrate(ctx, bases)
	for i, b := range bases {
		switch {
		case cache.IsFull(err) && !cold[b.Key].needed: // Redis has no room for the entry
			p.settleRead(b.Key, b.Row, b.Found)
		case err != nil:
			p.settleWaiting(b.Key, cache.Outcome{Err: cache.Unapplied(err)})
		case done[i] == cache.BaseOverflow:
			p.settleOverflow(b.Key)
		}
	}
}

// settleOverflow handles a counter whose row and blind increments do not add up to a 64-bit integer. A Set or Delete without
// a condition repairs it, since it does not need the sum; operations before one fail.
func (p *part) settleOverflow(key counter.Key) {
	repaired := false
	p.settleIf(func(w *cache.Write) bool {
		if w.Key != key {
			return false
		}
		repaired = repaired || (mayBeBlind(&w.Operation) && w.Kind != counter.Increment)
		w.Blind = repaired && mayBeBlind(&w.Operation)
		return !repaired
	}, cache.Outcome{Err: cache.Overflow()})
}

// settleWaiting gives every waiting operation on key the same outcome.
func (p *part) settleWaiting(key counter.Key, o cache.Outcome) {
	p.settleIf(func(w *cache.Write) bool { return w.Key == key }, o)
}

// settleIf gives the waiting operations that match the same outcome.
func (p *part) settleIf(match func(*cache.Write) bool, o cache.Outcome) {
	still, cold := p.waiting[:0:0], p.cold[:0:0]
	for i, at := range p.waiting {
		if match(&p.writes[at]) {
			p.settle(at, o)
		} else {
			still, cold = append(still, at), append(cold, p.cold[i])
		}
	}
	p.waiting, p.cold = still, cold
}

// runBlind carries out the operations that are still cold because Postgres does not answer: on an unchecked entry as it is, and writes
// on an unknown base. Reads and operations with a condition fail if there is no entry.
func (p *part) runBlind(ctx context.Context) {
	for _, at := range p.waiting {
		p.writes[at].Blind, p.writes[at].Accept = mayBeBlind(&p.writes[at].Operation), true
	}
	p.run(ctx)
	for _, at := range p.waiting {
		p.settle(at, cache.Outcome{Err: &counter.Error{
			Code: counter.CodeDatabaseUnavailable, RetryAfter: retryAfter,
			Detail: "the counter is not in Redis, and Postgres did not answer in time",
		}})
	}
}
