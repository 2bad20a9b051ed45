package deadletter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/tasks"
)

// page is how many keys are read, redriven or looked at in one call to Redis or Postgres.
const page = 500

// Store is the part of *store.Store that dead letters need.
type Store interface {
	Read(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error)
	Upsert(ctx context.Context, rows []counter.Row) (ahead []counter.Row, err error)
}

// Options are what a Box is made of. All of it stays the caller's to close.
type Options struct {
	Cache  *cache.Cache
	Store  Store
	Redis  redis.UniversalClient // for Asynq
	Logger *slog.Logger
}

// Box is where the dead letters are. It is safe for concurrent use, also beside running workers and other Boxes.
type Box struct {
	cache     *cache.Cache
	store     Store
	logger    *slog.Logger
	sender    *asynq.Client
	inspector *asynq.Inspector
}

// New returns a Box.
func New(o Options) *Box {
	return &Box{
		cache: o.Cache, store: o.Store, logger: o.Logger,
		sender: asynq.NewClientFromRedisClient(o.Redis), inspector: asynq.NewInspectorFromRedisClient(o.Redis),
	}
}

// NotDeadError is returned for a key that is not a dead letter.
type NotDeadError struct{ Key counter.Key }

// Error says where to look.
func (e *NotDeadError) Error() string {
	return fmt.Sprintf("%q is not a dead letter: `afterwrite dead list` shows those that are", e.Key)
}

// Count returns how many dead letters there are, in one round trip.
func (b *Box) Count(ctx context.Context) (int64, error) {
	backlog, err := b.cache.Backlog(ctx)
	return backlog.Dead, err
}

// Workers returns how many workers say that they are running. One that was killed is counted for some seconds more, until
// Asynq's note of it expires.
func (b *Box) Workers() (int, error) {
	servers, err := b.inspector.Servers()
	if err != nil {
		return 0, fmt.Errorf("ask which workers are running: %w", err)
	}
	n := 0
	for _, s := range servers {
		if _, ours := s.Queues[tasks.QueueFlush]; ours {
			n++
		}
	}
	return n, nil
}

// Retry returns the retry task of key, archived or not; nil when there is none.
func (b *Box) Retry(key counter.Key) (*asynq.TaskInfo, error) {
	info, err := b.inspector.GetTaskInfo(tasks.QueueRetry, tasks.RetryID(key))
	if missing(err) {
		return nil, nil //nolint:nilnil // there is none: that is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("look for the retry of %q: %w", key, err)
	}
	return info, nil
}

// missing reports that Asynq has no such task, or has never seen the queue.
func missing(err error) bool {
	return errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound)
}
