package writepath

import (
	"context"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxBringTries bounds how often the bases of cold keys are read again because a flush was completed meanwhile, or the
// entry was evicted before its operation ran.
const maxBringTries = 3

// Bases reads what Postgres has of some keys; a key without a row is not in the map. It must be bounded in time.
type Bases interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
}

// Hints is told of keys that have just become dirty. It must not block.
type Hints interface {
	Offer(key counter.Key, shard counter.Shard, backlog int64)
}

// Service carries out operations: see Open. It is safe for concurrent use.
type Service struct {
	cache  *cache.Cache
	writer *cache.Writer
	bases  Bases
	hints  Hints

	waiters *waiters
	barrier Barrier                         // nil: none
	within  func(ctx context.Context) Hints // hints that carry the trace of a request; nil: hints
	ends    []func()                        // close the parts, last first
}

// StopWaiting answers all that wait for Postgres at once, as if their time was over, and whatever would wait later. It ends
// what runs for them in the background.
func (s *Service) StopWaiting() { s.waiters.close() }

// Options say how operations are to be carried out.
type Options struct {
	// Minimal: the client wants no value back, so Postgres is never asked for the base of a cold key.
	Minimal bool

	// Wait is how long to wait until Postgres has what the operations did, or the version that a Get read: Synced says
	// whether it has. 0: not at all.
	Wait time.Duration
	// Version is what a Get waits for instead.
	Version int64

	// Durability is where writes have to be before they are answered, within Wait; where they are not, they have an error of
	// CodeNotDurable although they are applied. A Get takes no notice of it.
	Durability Durability
}

// Do carries out ops in order and returns one result for each; every Err is an *counter.Error. A counter that does not
// exist is no error: its Exists is false. Do blocks until Redis has answered (bounded by its client's time-outs) or ctx
// ends, and at most for three bounded reads of Postgres when keys are cold; and then as long as options say.
func (s *Service) Do(ctx context.Context, ops []counter.Operation, options Options) []counter.Result {
	switch {
	case options.Durability != InRedis:
		return s.doDurably(ctx, ops, options)
	case options.Wait > 0:
		return s.doAndWait(ctx, ops, options)
	}
	return s.carryOut(ctx, ops, options, nil)
}

// mark is what the watermark of a shard has to reach until Postgres has what an operation did; 0: not known.
type mark struct{ epoch, first int64 }

// carryOut is Do without waiting for Postgres. It notes a mark for each operation, where marks is not nil.
func (s *Service) carryOut(ctx context.Context, ops []counter.Operation, options Options, marks []mark) []counter.Result {
	results := make([]counter.Result, len(ops))
	for start := 0; start < len(ops); start += cache.MaxWrites {
		end := min(start+cache.MaxWrites, len(ops))
		var part []mark
		if marks != nil {
			part = marks[start:end]
		}
		s.doPart(ctx, ops[start:end], options, results[start:end], part)
	}
	return results
}

// doPart carries out up to cache.MaxWrites operations, which reach Redis in one call.
func (s *Service) doPart(ctx context.Context, ops []counter.Operation, options Options, results []counter.Result, marks []mark) {
	p := part{
		Service: s, hints: s.hints, results: results, marks: marks,
		writes: make([]cache.Write, len(ops)), waiting: make([]int, len(ops)),
	}
	for i, op := range ops {
		p.writes[i] = cache.Write{Operation: op, Blind: options.Minimal && op.Kind != counter.Get}
		p.waiting[i] = i
	}
	if s.within != nil {
		p.hints = s.within(ctx)
	}
	p.run(ctx)
	for range maxBringTries {
		if len(p.waiting) == 0 {
			return
		}
		if !p.bring(ctx) {
			break
		}
		p.run(ctx)
	}
	p.runBlind(ctx)
}

// part is some operations on their way.
type part struct {
	*Service

	hints   Hints
	writes  []cache.Write
	results []counter.Result
	marks   []mark          // nil: nobody wants them
	waiting []int           // the writes that have no result yet, in order
	cold    []cache.Outcome // of those that are waiting because they are cold
}

// run sends what is waiting. What comes back cold goes on waiting.
func (p *part) run(ctx context.Context) {
	if len(p.waiting) == 0 {
		return
	}
	writes := make([]cache.Write, len(p.waiting))
	for i, at := range p.waiting {
		writes[i] = p.writes[at]
	}
	outcomes := p.writer.Do(ctx, writes)
	sent := p.waiting
	p.waiting, p.cold = nil, nil
	for i, at := range sent {
		if o := outcomes[i]; o.Cold {
			p.waiting = append(p.waiting, at)
			p.cold = append(p.cold, o)
		} else {
			p.settle(at, o)
		}
	}
}

func (p *part) settle(at int, o cache.Outcome) {
	key, kind := p.writes[at].Key, p.writes[at].Kind
	if o.Backlog > 0 {
		p.hints.Offer(key, p.cache.Shard(key), o.Backlog)
	}
	// A replayed operation was in an earlier epoch, and the delete of what is deleted already is in none. Their entry tells.
	if p.marks != nil && kind != counter.Get && !o.Replayed && o.Exists {
		p.marks[at] = mark{epoch: o.Epoch, first: o.First}
	}
	p.results[at] = counter.Result{
		Err: o.Err, Replayed: o.Replayed,
		Counter: counter.Counter{
			Key: key, Value: o.Value, Version: o.Version, Known: o.Known, Synced: o.Synced,
			Exists: o.Exists && kind != counter.Delete,
		},
	}
}

// bring gets the bases of the cold keys into Redis, so that they can be run again. It reports false when Postgres could
// not be asked.
func (p *part) bring(ctx context.Context) bool {
	cold := p.coldKeys()
	keys := make([]counter.Key, 0, len(cold))
	for key := range cold {
		keys = append(keys, key)
	}
	rows, err := p.bases.Read(ctx, keys)
	if err != nil {
		return false
	}
	bases := make([]cache.Base, 0, len(keys))
	for _, key := range keys {
		row, found := rows[key]
		if !cold[key].needed && !found {
			p.settleRead(key, row, found)
			continue
		}
		bases = append(bases, cache.Base{Key: key, Row: row, Found: found, Token: cold[key].token})
	}
	p.hydrate(ctx, bases, cold)
	return true
}

// settleRead answers those who only read key with what Postgres has.
func (p *part) settleRead(key counter.Key, row counter.Row, found bool) {
	p.settleWaiting(key, cache.Outcome{
		Value: row.Value, Version: row.Version, Exists: found && !row.Deleted, Known: true, Synced: true,
	})
}

type coldKey struct {
	token  string
	needed bool // also if Postgres has no row: it is written, or has been blindly
}

func (p *part) coldKeys() map[counter.Key]coldKey {
	cold := make(map[counter.Key]coldKey, len(p.waiting))
	for i, at := range p.waiting {
		w := p.writes[at]
		c := cold[w.Key]
		c.token = p.cold[i].Token
		c.needed = c.needed || w.Kind != counter.Get || p.cold[i].BlindWrites
		cold[w.Key] = c
	}
	return cold
}

// hydrate brings bases in and settles what can go no further.
func (p *part) hydrate(ctx context.Context, bases []cache.Base, cold map[counter.Key]coldKey) {
	if len(bases) == 0 {
		return
	}
	done, err := p.cache.Hydrate(ctx, bases)
	for i, b := range bases {
		switch {
		case cache.IsFull(err) && !cold[b.Key].needed: // there is no room in Redis to keep it
			p.settleRead(b.Key, b.Row, b.Found)
		case err != nil:
			p.settleWaiting(b.Key, cache.Outcome{Err: cache.Unapplied(err)})
		case done[i] == cache.BaseOverflow:
			p.settleOverflow(b.Key)
		}
	}
}

// settleOverflow deals with a counter whose value in Postgres and its blind increments do not add up. A SET or DELETE mends
// it, since it does not need the sum; what comes before one cannot be carried out.
func (p *part) settleOverflow(key counter.Key) {
	mended := false
	p.settleIf(func(w *cache.Write) bool {
		if w.Key != key {
			return false
		}
		mended = mended || w.Kind == counter.Set || w.Kind == counter.Delete
		w.Blind = mended && w.Kind != counter.Get
		return !mended
	}, cache.Outcome{Err: cache.Overflow()})
}

// settleWaiting gives every waiting operation on key the same outcome.
func (p *part) settleWaiting(key counter.Key, o cache.Outcome) {
	p.settleIf(func(w *cache.Write) bool { return w.Key == key }, o)
}

// settleIf gives the waiting operations for which match is true the same outcome.
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

// runBlind carries out the writes that are still cold, because Postgres cannot be asked, on an unknown base. Reads have
// to be told.
func (p *part) runBlind(ctx context.Context) {
	for _, at := range p.waiting {
		p.writes[at].Blind = p.writes[at].Kind != counter.Get
	}
	p.run(ctx)
	for _, at := range p.waiting {
		p.settle(at, cache.Outcome{Err: &counter.Error{
			Code: counter.CodeDatabaseUnavailable, RetryAfter: retryAfter,
			Detail: "the counter is not in Redis, and Postgres did not answer in time",
		}})
	}
}
