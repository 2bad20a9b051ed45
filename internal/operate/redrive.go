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
	// redriveBatch bounds the keys that one call redrives. Redis needs about 6 µs for each, and serves no other client meanwhile.
	redriveBatch = 300

	// awaitInterval is the pause between two reads of the awaited keys.
	awaitInterval = 200 * time.Millisecond
)

// Redriven is the result of Redrive.
type Redriven struct {
	Keys    []counter.Key // in the open epoch now
	NotDead []counter.Key // nothing was done to these
}

// Redrive puts the dead keys among keys into the open epochs of their shards, removes their retries from Asynq's archive, and
// sends a flush for each. After an error, the result has the keys that were redriven before it. An interruption loses nothing:
// the first step is one atomic call for up to 300 keys of a shard. After it the keys are in an epoch, where a sweep finds them,
// and the tasks only save time.
//
// The keys are flushed when a worker runs. Redrive blocks for one bounded call for each shard that has keys, and up to five for
// each key.
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

// RedriveAll is Redrive for all dead letters, but sends a drain for each page of a shard instead of a flush for each key. It
// redrives each key once, even if the key dies again meanwhile. After an error, the result has the keys that were redriven before
// it.
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

// sendDrain removes the archived retries of keys, and sends a drain of their shard. archived is the result of Service.archived.
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

// archived returns the IDs of the archived retries. Asynq keeps about 10,000, so reading them page by page costs less than one call
// for each of many keys. If it misses a retry, the worker's next retry of that key removes it.
func (s *Service) archived(ctx context.Context) (map[string]bool, error) {
	ids := make(map[string]bool)
	for number := 1; ctx.Err() == nil; number++ {
		found, err := s.inspector.ListArchivedTasks(s.queues.Retry(), asynq.Page(number), asynq.PageSize(pageSize))
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

// unarchive removes key's retry if it is archived. Asynq's RunTask is no alternative: it keeps the old count of retries, so the
// first refusal would archive the task again.
func (s *Service) unarchive(ctx context.Context, key counter.Key) error {
	retry, err := s.task(s.queues.Retry(), tasks.RetryID(key))
	if err != nil || retry == nil || retry.State != asynq.TaskStateArchived {
		return err
	}
	return s.deleteRetry(ctx, key)
}

// deleteRetry removes key's archived retry. Meanwhile a worker may have replaced it with a new retry of the same ID, which this
// removes too. Then a sweep finds the key, later than the retry would.
func (s *Service) deleteRetry(ctx context.Context, key counter.Key) error {
	if err := ctx.Err(); err != nil {
		return err // Asynq's Inspector has no context parameter
	}
	err := s.inspector.DeleteTask(s.queues.Retry(), tasks.RetryID(key))
	if err == nil || missing(err) {
		return nil
	}
	// DeleteTask has no specific error for a running task, which belongs to a worker and stays.
	retry, taskErr := s.task(s.queues.Retry(), tasks.RetryID(key))
	if taskErr == nil && (retry == nil || retry.State != asynq.TaskStateArchived) {
		return nil
	}
	return fmt.Errorf("remove the archived retry of %q: %w", key, err)
}

// Outcome is the result of Await.
type Outcome struct {
	Clean   []counter.Key // Postgres has them
	Dead    []counter.Key // dead letters again
	Waiting []counter.Key // neither: they wait for a flush or a retry
}

// Await blocks until each of keys is clean or dead, until timeout, or until ctx ends. It makes one bounded call for up to 500 keys
// of a shard, five times a second.
func (s *Service) Await(ctx context.Context, keys []counter.Key, timeout time.Duration) (Outcome, error) {
	done := Outcome{Waiting: keys}
	err := poll(ctx, awaitInterval, timeout, func() (bool, error) {
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
