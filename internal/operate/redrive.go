package operate

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

const (
	// redriveBatch is how many keys one call redrives: Redis does nothing else meanwhile, and takes some 6 µs for each.
	redriveBatch = 300

	// awaitInterval is the pause between two reads of the keys that are waited for.
	awaitInterval = 200 * time.Millisecond
)

// Redriven says what Redrive did.
type Redriven struct {
	Keys    []counter.Key // in the open epoch now
	NotDead []counter.Key // left alone
}

// Redrive puts those of keys that are dead into the open epochs of their shards, removes their retries from Asynq's archive, and
// sends a flush for each. The result holds what was done before an error. Nothing is lost if it is interrupted: the first
// step, one atomic call for up to 300 keys of a shard, puts the key into an epoch, where a sweep finds it; the tasks only
// make it sooner.
//
// A worker must run for anything to happen. It blocks for one bounded call for each shard that has keys, and up to five
// for each key.
func (s *Service) Redrive(ctx context.Context, keys []counter.Key) (Redriven, error) {
	var done Redriven
	keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	for shard, some := range s.byShard(keys) {
		for part := range slices.Chunk(some, redriveBatch) {
			redriven, err := s.cache.Redrive(ctx, shard, part)
			if err != nil {
				return done, err
			}
			done.Keys = append(done.Keys, redriven...)
			for _, key := range part {
				if !slices.Contains(redriven, key) {
					done.NotDead = append(done.NotDead, key)
				}
			}
			if err := s.sendFlushes(ctx, shard, redriven); err != nil {
				return done, err
			}
		}
	}
	slices.Sort(done.Keys)
	slices.Sort(done.NotDead)
	return done, nil
}

// sendFlushes removes the archived retries of keys, and sends a flush for each.
func (s *Service) sendFlushes(ctx context.Context, shard counter.Shard, keys []counter.Key) error {
	for _, key := range keys {
		if err := s.unarchive(ctx, key); err != nil {
			return err
		}
		if err := tasks.Send(ctx, s.sender, tasks.Flush(key, shard)); err != nil {
			return err
		}
	}
	return nil
}

// RedriveAll is Redrive for every dead letter there is, with a drain for each page of a shard instead of a flush for each
// key. It redrives each key once, even if it is dead again before the end. The result holds what was done before an error.
func (s *Service) RedriveAll(ctx context.Context) ([]counter.Key, error) {
	archived, err := s.archived(ctx)
	if err != nil {
		return nil, err
	}
	var done []counter.Key
	for n := range s.cache.Shards() {
		shard := counter.Shard(n)
		err := s.cache.EachDead(ctx, shard, func(notes []cache.Note) error {
			for part := range slices.Chunk(notes, redriveBatch) {
				keys := make([]counter.Key, len(part))
				for i, n := range part {
					keys[i] = n.Key
				}
				redriven, err := s.cache.Redrive(ctx, shard, keys)
				if err != nil {
					return err
				}
				done = append(done, redriven...)
				if err := s.sendDrain(ctx, shard, redriven, archived); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// sendDrain removes those retries of keys that are archived, and sends a drain of their shard.
func (s *Service) sendDrain(ctx context.Context, shard counter.Shard, keys []counter.Key, archived map[string]bool) error {
	if len(keys) == 0 {
		return nil
	}
	for _, key := range keys {
		if !archived[tasks.RetryID(key)] {
			continue
		}
		if err := s.deleteRetry(ctx, key); err != nil {
			return err
		}
	}
	return tasks.Send(ctx, s.sender, tasks.Drain(shard, 0))
}

// archived returns the IDs of the archived retries. Asynq keeps about 10,000, so reading them page by page costs less than
// asking for each of a larger number of keys. One that it misses does no harm: the worker's next retry removes it.
func (s *Service) archived(ctx context.Context) (map[string]bool, error) {
	ids := make(map[string]bool)
	for number := 1; ctx.Err() == nil; number++ {
		found, err := s.inspector.ListArchivedTasks(s.cache.Prefix()+tasks.QueueRetry, asynq.Page(number), asynq.PageSize(pageSize))
		if err != nil && !missing(err) {
			return nil, fmt.Errorf("list the archived retries: %w", err)
		}
		for _, task := range found {
			ids[task.ID] = true
		}
		if len(found) < pageSize {
			return ids, nil
		}
	}
	return nil, ctx.Err()
}

// unarchive removes key's retry if it is archived. asynq's RunTask would run it with its old count of retries, and
// archive it again at the first refusal.
func (s *Service) unarchive(ctx context.Context, key counter.Key) error {
	retry, err := s.Task(tasks.QueueRetry, tasks.RetryID(key))
	if err != nil || retry == nil || retry.State != asynq.TaskStateArchived {
		return err
	}
	return s.deleteRetry(ctx, key)
}

// deleteRetry removes key's archived retry. Since it was seen in the archive, a worker may have replaced it by a live one
// with the same ID. Then the key waits for a sweep instead of for its retry: later, not lost.
func (s *Service) deleteRetry(ctx context.Context, key counter.Key) error {
	if err := ctx.Err(); err != nil {
		return err // asynq's Inspector takes no context
	}
	err := s.inspector.DeleteTask(s.cache.Prefix()+tasks.QueueRetry, tasks.RetryID(key))
	if err == nil || missing(err) {
		return nil
	}
	// Asynq has no error for a task that is running: that one belongs to a worker.
	retry, taskErr := s.Task(tasks.QueueRetry, tasks.RetryID(key))
	if taskErr == nil && (retry == nil || retry.State != asynq.TaskStateArchived) {
		return nil
	}
	return fmt.Errorf("remove the archived retry of %q: %w", key, err)
}

// Outcome says what became of redriven keys.
type Outcome struct {
	Clean   []counter.Key // Postgres has them
	Dead    []counter.Key // Postgres refused them for good again
	Waiting []counter.Key // neither, when the time was over: they wait for a flush or a retry
}

// Await blocks until each of keys is clean or dead, but no longer than bound and until ctx ends, and says which. It
// makes one bounded call for up to 500 keys of a shard, five times a second.
func (s *Service) Await(ctx context.Context, keys []counter.Key, bound time.Duration) (Outcome, error) {
	done := Outcome{Waiting: keys}
	err := poll(ctx, awaitInterval, bound, func() (bool, error) {
		err := s.settled(ctx, &done)
		return len(done.Waiting) == 0, err
	})
	if err != nil {
		return done, err
	}
	slices.Sort(done.Clean)
	slices.Sort(done.Dead)
	slices.Sort(done.Waiting)
	return done, nil
}

// settled moves the keys that are clean or dead out of Waiting.
func (s *Service) settled(ctx context.Context, done *Outcome) error {
	var waiting []counter.Key
	for part := range slices.Chunk(done.Waiting, pageSize) {
		inspected, err := s.cache.Inspect(ctx, part)
		if err != nil {
			return err
		}
		for i, key := range part {
			switch inspected[i].Condition() {
			case cache.Clean:
				done.Clean = append(done.Clean, key)
			case cache.IsDead:
				done.Dead = append(done.Dead, key)
			default:
				waiting = append(waiting, key)
			}
		}
	}
	done.Waiting = waiting
	return nil
}
