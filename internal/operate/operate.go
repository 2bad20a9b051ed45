// Package operate holds the actions of operators, for the command line, the API and the dashboard:
//
//   - Dead letters: Each and List list them, Get and Show read one, Redrive and RedriveAll retry them, Discard resets one to the
//     state in Postgres. Await waits for redriven keys.
//   - Flush has the workers flush now, and reports the number of keys that are left.
//   - Verify compares every entry in Redis with its row in Postgres, and repairs the differences that are safe to repair.
//     It can also replay the histories of counters, and compares the result with their rows.
//
// A dead letter is a counter whose row Postgres refused until the attempts were used up. The key stays dirty and accepts
// writes, but no drain flushes it. The dead-letter store is the dead hash of each shard. Asynq's archive has the last
// retries too, but only about 10,000 tasks.
//
// Every action may be interrupted at any point and repeated: the key is dirty until Postgres has a state of it. Explain
// turns an error of this package into a code and a sentence for all three interfaces.
package operate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/tasks"
)

// pageSize bounds the keys that one call to Redis or Postgres reads.
const pageSize = 500

// Store is the part of *store.Store that operators need.
type Store interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
	UpsertUnlocked(ctx context.Context, rows []counter.Row) (store.Upserted, error)
	UpsertHistory(ctx context.Context, rows []counter.Row, history store.History) (store.Upserted, error)
	Records(ctx context.Context, after store.RecordPlace, limit int) ([]store.KeyedRecord, store.RecordPlace, error)
	HistoryEnds(ctx context.Context, keys []counter.Key) (map[counter.Key]store.HistoryEnds, error)
	ReadHistory(ctx context.Context, key counter.Key, each store.EachPart) (store.HistoryEnds, error)
}

// Options are the dependencies of a Service. The caller closes them.
type Options struct {
	Cache  *cache.Cache
	Store  Store                 // nil: only Flush may be called
	Redis  redis.UniversalClient // for Asynq
	Sender tasks.Sender          // nil: sends to Redis
	Logger *slog.Logger
}

// Service carries out operators' actions. It is safe for concurrent use, even while workers and other Services run.
type Service struct {
	cache     *cache.Cache
	store     Store
	logger    *slog.Logger
	sender    tasks.Sender
	queues    tasks.Queues
	inspector *asynq.Inspector
}

// New returns a Service.
func New(o Options) *Service {
	if o.Sender == nil {
		o.Sender = tasks.NewSender(o.Redis, o.Cache.Prefix())
	}
	return &Service{
		cache: o.Cache, store: o.Store, logger: o.Logger, sender: o.Sender, queues: tasks.QueuesIn(o.Redis, o.Cache.Prefix()),
		inspector: asynq.NewInspectorFromRedisClient(tasks.OnRedisTime(o.Redis)),
	}
}

// Workers returns the number of running workers. A killed worker counts for some seconds, until its record in Asynq expires.
func (s *Service) Workers() (int, error) {
	servers, err := s.inspector.Servers()
	if err != nil {
		return 0, fmt.Errorf("count the running workers: %w", err)
	}
	n := 0
	for _, server := range servers {
		if _, ours := server.Queues[s.queues.Sweep()]; ours {
			n++
		}
	}
	return n, nil
}

// Tasks returns the tasks of Asynq that belong to key, in any state: its flush and its retry.
func (s *Service) Tasks(key counter.Key) ([]*asynq.TaskInfo, error) {
	flush, err := s.task(s.queues.Flush(s.cache.Shard(key)), tasks.FlushID(key))
	if err != nil {
		return nil, err
	}
	retry, err := s.task(s.queues.Retry(), tasks.RetryID(key))
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc([]*asynq.TaskInfo{flush, retry}, func(t *asynq.TaskInfo) bool { return t == nil }), nil
}

// task returns a task in any state, or nil if there is none.
func (s *Service) task(queue, id string) (*asynq.TaskInfo, error) {
	info, err := s.inspector.GetTaskInfo(queue, id)
	if missing(err) {
		return nil, nil //nolint:nilnil // a missing task is no error
	}
	if err != nil {
		return nil, fmt.Errorf("read task %q: %w", id, err)
	}
	return info, nil
}

// missing reports whether err means that the task or its queue does not exist.
func missing(err error) bool {
	return errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound)
}

func (s *Service) byShard(keys []counter.Key) map[counter.Shard][]counter.Key {
	shards := make(map[counter.Shard][]counter.Key)
	for _, key := range keys {
		shard := s.cache.Shard(key)
		shards[shard] = append(shards[shard], key)
	}
	return shards
}

// poll calls inspect at once and then every interval, until inspect reports done or fails, ctx ends, or timeout. It calls inspect
// a last time at timeout. With a timeout of 0 it calls inspect once.
func poll(ctx context.Context, interval, timeout time.Duration, inspect func() (done bool, err error)) error {
	deadline := time.Now().Add(timeout)
	for {
		done, err := inspect()
		left := time.Until(deadline)
		if err != nil || done || left <= 0 {
			return err
		}
		if err := pause(ctx, min(interval, left)); err != nil {
			return err
		}
	}
}

// pause blocks for d. If ctx ends earlier, it returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
