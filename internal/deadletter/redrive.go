package deadletter

import (
	"context"
	"fmt"
	"slices"

	"github.com/hibiken/asynq"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

// redrivePage is how many keys one call redrives: Redis does nothing else meanwhile, and takes some 6 µs for each.
const redrivePage = 300

// Redriven says what Redrive did.
type Redriven struct {
	Keys    []counter.Key // in the open epoch now
	NotDead []counter.Key // left alone
}

// Redrive puts those of keys that are dead into the open epochs of their shards, removes their retries from Asynq's archive, and
// sends a flush for each. What it has done before an error is in its result. Nothing is lost wherever it ends: from the first
// step on, which is one atomic call for up to 300 keys of a shard, the key is in an epoch and a sweep finds it; the tasks only
// make it sooner.
//
// A worker has to run for anything to happen. It blocks for one bounded call for each shard that has some, and up to five
// for each key.
func (b *Box) Redrive(ctx context.Context, keys []counter.Key) (Redriven, error) {
	var done Redriven
	byShard := make(map[counter.Shard][]counter.Key)
	for _, key := range keys {
		shard := b.cache.Shard(key)
		if !slices.Contains(byShard[shard], key) {
			byShard[shard] = append(byShard[shard], key)
		}
	}
	for shard, keys := range byShard {
		for part := range slices.Chunk(keys, redrivePage) {
			redriven, err := b.cache.Redrive(ctx, shard, part)
			if err != nil {
				return done, err
			}
			done.Keys = append(done.Keys, redriven...)
			for _, key := range part {
				if !slices.Contains(redriven, key) {
					done.NotDead = append(done.NotDead, key)
				}
			}
			if err := b.hint(ctx, shard, redriven); err != nil {
				return done, err
			}
		}
	}
	slices.Sort(done.Keys)
	slices.Sort(done.NotDead)
	return done, nil
}

// hint removes what is archived of keys, and sends their flushes.
func (b *Box) hint(ctx context.Context, shard counter.Shard, keys []counter.Key) error {
	for _, key := range keys {
		retry, err := b.Retry(key)
		if err != nil {
			return err
		}
		if retry != nil && retry.State == asynq.TaskStateArchived {
			if err := b.unarchive(ctx, key); err != nil {
				return err
			}
		}
		if err := tasks.Send(ctx, b.sender, tasks.Flush(key, shard)); err != nil {
			return err
		}
	}
	return nil
}

// RedriveAll is Redrive for every dead letter there is, with a drain for each page of a shard instead of a flush for each
// key. It takes each key once, also when it is dead again before the end. What it has done before an error is in its result.
func (b *Box) RedriveAll(ctx context.Context) ([]counter.Key, error) {
	archived, err := b.archived(ctx)
	if err != nil {
		return nil, err
	}
	var done []counter.Key
	for s := range b.cache.Shards() {
		shard := counter.Shard(s)
		err := b.cache.EachDead(ctx, shard, func(notes []cache.Note) error {
			for part := range slices.Chunk(notes, redrivePage) {
				keys := make([]counter.Key, len(part))
				for i, n := range part {
					keys[i] = n.Key
				}
				redriven, err := b.cache.Redrive(ctx, shard, keys)
				if err != nil {
					return err
				}
				done = append(done, redriven...)
				if err := b.drain(ctx, shard, redriven, archived); err != nil {
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

// drain removes what is archived of keys, and sends a drain of their shard.
func (b *Box) drain(ctx context.Context, shard counter.Shard, keys []counter.Key, archived map[string]bool) error {
	if len(keys) == 0 {
		return nil
	}
	for _, key := range keys {
		if !archived[tasks.RetryID(key)] {
			continue
		}
		if err := b.unarchive(ctx, key); err != nil {
			return err
		}
	}
	return tasks.Send(ctx, b.sender, tasks.Drain(shard, 0))
}

// archived returns the IDs of the archived retries. Asynq keeps about 10,000, so reading them page by page costs less than
// asking for each of a larger number of keys. One that it misses is no harm: the worker's next retry makes it go.
func (b *Box) archived(ctx context.Context) (map[string]bool, error) {
	ids := make(map[string]bool)
	for number := 1; ctx.Err() == nil; number++ {
		found, err := b.inspector.ListArchivedTasks(tasks.QueueRetry, asynq.Page(number), asynq.PageSize(page))
		if err != nil && !missing(err) {
			return nil, fmt.Errorf("list the archived retries: %w", err)
		}
		for _, task := range found {
			ids[task.ID] = true
		}
		if len(found) < page {
			return ids, nil
		}
	}
	return nil, ctx.Err()
}

// unarchive deletes key's archived retry. asynq's RunTask would run it with its old count of retries, and archive it again
// at the first refusal.
//
// In the moment since it was seen in the archive, a worker may have replaced it by a live one of the same ID. Then the key
// waits for a sweep instead of for its retry: later, not lost.
func (b *Box) unarchive(ctx context.Context, key counter.Key) error {
	if err := ctx.Err(); err != nil {
		return err // asynq's Inspector takes no context
	}
	err := b.inspector.DeleteTask(tasks.QueueRetry, tasks.RetryID(key))
	if err == nil || missing(err) {
		return nil
	}
	// Asynq has no name for "it is running": that is a worker's, which will deal with it.
	if retry, lookErr := b.Retry(key); lookErr == nil && (retry == nil || retry.State != asynq.TaskStateArchived) {
		return nil
	}
	return fmt.Errorf("remove the archived retry of %q: %w", key, err)
}
