package writepath

import (
	"context"
	"sync"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Durability is where a write must be before its result is returned.
type Durability int

// The levels.
const (
	AsConfigured Durability = iota // Parts.Durability
	InRedis                        // in the memory of the primary
	OnReplicas                     // in the memory of Parts.WaitReplicas replicas
	OnDisk                         // in Redis's append-only file on disk
	InPostgres
)

// DurabilityOf returns the level that AFTERWRITE_DURABILITY names: memory, replica or disk.
func DurabilityOf(name string) Durability {
	return map[string]Durability{"replica": OnReplicas, "disk": OnDisk}[name] // AsConfigured, which is InRedis, for memory
}

// defaultConfirmation is how long a write waits for OnReplicas or OnDisk, unless Options.Wait says otherwise.
const defaultConfirmation = 2 * time.Second

// places name the levels in errors.
var places = map[Durability]string{OnReplicas: "on the replicas", OnDisk: "on disk", InPostgres: "in Postgres"}

// route is the Writer of the operations of one Do, and what it waits for afterwards.
type route struct {
	writer *cache.Writer
	until  time.Time // when the wait for confirmations ends
	// By operation; nil if they are not needed.
	confirmations []*cache.Confirmation
	marks         []mark
}

// part returns the route of the operations from start to end.
func (r *route) part(start, end int) route {
	p := *r
	if p.confirmations != nil {
		p.confirmations = p.confirmations[start:end]
	}
	if p.marks != nil {
		p.marks = p.marks[start:end]
	}
	return p
}

// route returns the route of operations with a level. Its error is a *counter.Error: nothing is applied.
func (s *Service) route(level Durability, operations int, wait time.Duration) (*route, error) {
	switch level {
	case OnReplicas, OnDisk:
		writer := s.durable[level]
		if writer == nil {
			return nil, &counter.Error{Code: counter.CodeUnsupportedDurability, Detail: "this process does not support durability"}
		}
		if wait == 0 {
			wait = defaultConfirmation
		}
		return &route{writer: writer(), until: time.Now().Add(wait), confirmations: make([]*cache.Confirmation, operations)}, nil
	default:
		return &route{writer: s.writer}, nil
	}
}

// openDurable prepares a Writer for each level, which the first write with it opens.
func (s *Service) openDurable(p *Parts, mayDirty func() bool) {
	s.durable = make(map[Durability]func() *cache.Writer)
	for level, where := range map[Durability]cache.Level{OnReplicas: cache.OnReplicas, OnDisk: cache.OnDisk} {
		var w *cache.Writer
		s.durable[level] = sync.OnceValue(func() *cache.Writer {
			w = p.Cache.NewDurableWriter(mayDirty, where, p.WaitReplicas)
			if p.Tracing != nil {
				w.WithTracing(p.Tracing)
			}
			return w
		})
		s.onClose(func() {
			if w != nil {
				w.Close()
			}
		})
	}
}

// level returns the level of operations. Reads have none.
func (s *Service) level(ops []counter.Operation, options *Options) Durability {
	level := options.Durability
	if level == AsConfigured {
		level = s.durability
	}
	for i := range ops {
		if ops[i].Kind != counter.Get {
			return level
		}
	}
	return InRedis
}

// doDurably is Do for writes with a durability other than InPostgres.
func (s *Service) doDurably(ctx context.Context, ops []counter.Operation, options Options, level Durability) []counter.Result {
	r, err := s.route(level, len(ops), options.Wait)
	if err != nil {
		return failed(len(ops), err)
	}
	results := s.carryOut(ctx, ops, options, r)
	r.confirm(ctx, results, level)
	s.excuse(results, options)
	return results
}

// doInPostgres is Do for writes that must be in Postgres.
func (s *Service) doInPostgres(ctx context.Context, ops []counter.Operation, options Options) []counter.Result {
	results := s.doAndWait(ctx, ops, options, InRedis)
	for i := range results {
		if results[i].Err == nil && !results[i].Counter.Synced {
			results[i].Err = notDurable(InPostgres, nil)
		}
	}
	return results
}

// confirm waits until the writes are confirmed, at most until the end of the wait. Those that are not get CodeNotDurable, unless
// Postgres has them.
func (r *route) confirm(ctx context.Context, results []counter.Result, level Durability) {
	if r.confirmations == nil {
		return
	}
	var last *cache.Confirmation
	var err error
	for i, c := range r.confirmations {
		if c == nil || results[i].Err != nil || results[i].Counter.Synced {
			continue
		}
		if c != last {
			last, err = c, c.Await(ctx, r.until) // step: confirm
		}
		if err != nil {
			results[i].Err = notDurable(level, err)
		}
	}
}

// excuse makes the process, not the request, the reason if Redis does not support the level that is configured: it may after a failover.
func (s *Service) excuse(results []counter.Result, options Options) {
	if options.Durability != AsConfigured {
		return
	}
	for i := range results {
		if counter.CodeOf(results[i].Err) == counter.CodeUnsupportedDurability {
			results[i].Err = &counter.Error{
				Code: counter.CodeCacheUnavailable, RetryAfter: retryAfter, Err: results[i].Err,
				Detail: "Redis does not support the durability that is configured; the operation was not applied",
			}
		}
	}
}

func notDurable(level Durability, err error) error {
	return &counter.Error{
		Code: counter.CodeNotDurable, RetryAfter: retryAfter, Err: err,
		Detail: "the operation was applied in Redis, but it is not known to be " + places[level] +
			" yet; with an Idempotency-Key it may be repeated to wait again",
	}
}
