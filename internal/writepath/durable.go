package writepath

import (
	"context"
	"errors"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Durability is where a write must be before its result is returned.
type Durability int

// The levels.
const (
	InRedis    Durability = iota // in the memory of the primary, like every write
	OnReplicas                   // on the number of replicas that the Barrier waits for
	OnDisk                       // in Redis's append-only file on disk
	InPostgres
)

// Barrier waits until writes that Redis has answered are on replicas or on disk. *cache.Barrier implements it.
type Barrier interface {
	Begin(ctx context.Context, level cache.Level, keys []counter.Key) (*cache.Pass, error)
}

// doDurably is Do for writes with a durability. Writes that do not reach it within options.Wait are applied, but get CodeNotDurable.
func (s *Service) doDurably(ctx context.Context, ops []counter.Operation, options Options) []counter.Result {
	if options.Durability == InPostgres {
		results := s.doAndWait(ctx, ops, options)
		for i := range results {
			if results[i].Err == nil && !results[i].Counter.Synced {
				results[i].Err = notDurable("in Postgres", nil)
			}
		}
		return results
	}
	level, where := cache.OnReplicas, "on the replicas"
	if options.Durability == OnDisk {
		level, where = cache.OnDisk, "on disk"
	}
	pass, err := s.begin(ctx, level, ops)
	if err != nil {
		return failed(len(ops), err)
	}
	started := time.Now()
	results := s.carryOut(ctx, ops, options, nil)
	ctx, cancel := context.WithDeadline(ctx, started.Add(options.Wait))
	defer cancel()
	if !anyApplied(results) {
		return results
	}
	if err := pass.Await(ctx); err != nil {
		for i := range results {
			if results[i].Err == nil {
				results[i].Err = notDurable(where, err)
			}
		}
	}
	return results
}

func (s *Service) begin(ctx context.Context, level cache.Level, ops []counter.Operation) (*cache.Pass, error) {
	err := cache.ErrNoSuchLevel
	var pass *cache.Pass
	if s.barrier != nil {
		keys := make([]counter.Key, len(ops))
		for i, op := range ops {
			keys[i] = op.Key
		}
		pass, err = s.barrier.Begin(ctx, level, keys)
	}
	switch {
	case err == nil:
		return pass, nil
	case errors.Is(err, cache.ErrNoSuchLevel):
		return nil, &counter.Error{
			Code:   counter.CodeUnsupportedDurability,
			Detail: "this Redis does not support this durability: disk needs appendonly with appendfsync always, or Redis 7.2",
		}
	default:
		return nil, cache.Unapplied(err)
	}
}

func anyApplied(results []counter.Result) bool {
	for _, r := range results {
		if r.Err == nil {
			return true
		}
	}
	return false
}

func notDurable(where string, err error) error {
	return &counter.Error{
		Code: counter.CodeNotDurable, RetryAfter: retryAfter, Err: err,
		Detail: "the operation was applied in Redis, but it is not known to be " + where +
			" yet; with an Idempotency-Key it may be repeated to wait again",
	}
}
