// Package operate holds what an operator does by the command line, the API or the dashboard:
//
//   - Dead letters: Each and List show them, Get and Show read one, Redrive and RedriveAll retry them, Discard returns one
//     to what Postgres has. Await reports what became of redriven keys.
//   - Flush asks the workers for a flush now, and reports what is left.
//   - Verify compares every entry in Redis with its row in Postgres, and repairs what the rules allow.
//
// A dead letter is a counter whose row Postgres refused until the attempts were used up. The key stays dirty and takes
// writes, but no drain flushes it. The dead-letter store is the dead hash of each shard; Asynq's archive holds the last
// retries too, but is cut to about 10,000 tasks.
//
// Every action may be interrupted at any point and repeated: the key is dirty until Postgres has a state of it. Explain
// turns an error of this package into a code and a sentence for all three interfaces.
package operate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

// pageSize is how many keys one call to Redis or Postgres reads.
const pageSize = 500

// Store is the part of *store.Store that operators need.
type Store interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
	Upsert(ctx context.Context, rows []counter.Row) (ahead []counter.Row, err error)
}

// Options are the parts of a Service. The caller closes them.
type Options struct {
	Cache  *cache.Cache
	Store  Store                 // nil: no dead letters and no Verify
	Redis  redis.UniversalClient // for Asynq
	Sender tasks.Sender          // nil: one on Redis
	Logger *slog.Logger
}

// Service carries out operators' actions. It is safe for concurrent use, also beside workers and other Services.
type Service struct {
	cache     *cache.Cache
	store     Store
	logger    *slog.Logger
	sender    tasks.Sender
	inspector *asynq.Inspector
}

// New returns a Service.
func New(o Options) *Service {
	if o.Sender == nil {
		o.Sender = tasks.NewSender(o.Redis, o.Cache.Prefix())
	}
	return &Service{
		cache: o.Cache, store: o.Store, logger: o.Logger, sender: o.Sender, inspector: asynq.NewInspectorFromRedisClient(o.Redis),
	}
}

// Workers returns how many workers are running. A worker that was killed counts for some seconds more, until Asynq's
// record of it expires.
func (s *Service) Workers() (int, error) {
	servers, err := s.inspector.Servers()
	if err != nil {
		return 0, fmt.Errorf("ask which workers are running: %w", err)
	}
	n := 0
	for _, server := range servers {
		if _, ours := server.Queues[s.cache.Prefix()+tasks.QueueFlush]; ours {
			n++
		}
	}
	return n, nil
}

// Task returns a task of Asynq, in whatever state; nil when there is none. queue is one of the names in package tasks, without a
// namespace.
func (s *Service) Task(queue, id string) (*asynq.TaskInfo, error) {
	info, err := s.inspector.GetTaskInfo(s.cache.Prefix()+queue, id)
	if missing(err) {
		return nil, nil //nolint:nilnil // there is none: that is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("look for task %q: %w", id, err)
	}
	return info, nil
}

// missing reports that Asynq has no such task, or has never seen the queue.
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

// poll calls inspect at once and then every interval, until it reports done or fails, ctx ends, or bound is over. The last
// call is made when bound is over; a bound of 0 makes only one call.
func poll(ctx context.Context, interval, bound time.Duration, inspect func() (done bool, err error)) error {
	deadline := time.Now().Add(bound)
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

// pause blocks for d, or until ctx ends, and then returns its error.
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
