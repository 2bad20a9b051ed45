package writepath

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// doAndWait is Do followed by a wait for Postgres. Writes that Postgres does not have in time must have reached the level.
func (s *Service) doAndWait(ctx context.Context, ops []counter.Operation, options Options, level Durability) []counter.Result {
	release, err := s.waiters.reserve(len(ops))
	if err != nil {
		return failed(len(ops), err)
	}
	defer release()
	r, err := s.route(level, len(ops), options.Wait)
	if err != nil {
		return failed(len(ops), err)
	}
	r.marks = make([]mark, len(ops))
	results := s.carryOut(ctx, ops, options, r)
	targets := make([]*target, 0, len(ops))
	places := make([]int, 0, len(ops))
	for i, result := range results {
		if result.Counter.Synced {
			results[i].Counter.SyncedVersion = result.Counter.Version
		}
		if t := toWait(ops[i], result, options, r.marks[i]); t != nil {
			targets = append(targets, t)
			places = append(places, i)
		}
	}
	s.waiters.await(ctx, targets, options.Wait)
	for i, t := range targets {
		place := places[i]
		if ops[place].Kind == counter.Get {
			results[place] = s.carryOut(ctx, ops[place:place+1], options, &route{writer: s.writer})[0] // it may have been written since
		}
		results[place].Counter.Synced = t.synced
		results[place].Counter.SyncedVersion = 0
		if t.synced {
			results[place].Counter.SyncedVersion = t.version
		}
	}
	r.confirm(ctx, results, level)
	s.excuse(results, options)
	return results
}

// toWait returns the target to wait for; nil if there is none.
func toWait(op counter.Operation, r counter.Result, options Options, m mark) *target {
	version := r.Counter.Version
	if op.Kind == counter.Get && options.Version > 0 {
		version = options.Version
	}
	if r.Err != nil || (r.Counter.Synced && version <= r.Counter.Version) {
		return nil
	}
	if r.Counter.Known && version == 0 {
		return nil // the counter was never written
	}
	return &target{key: op.Key, version: version, mark: m, hint: op.Kind == counter.Get}
}

func failed(n int, err error) []counter.Result {
	results := make([]counter.Result, n)
	for i := range results {
		results[i].Err = err
	}
	return results
}
