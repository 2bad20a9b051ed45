package tasks

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Queues. Their names begin with aw- because other programs may use Asynq in the same Redis database. In a namespace the name of a queue is
// its prefix and one of these: "ns:aw-flush" (see config.Prefix).
const (
	QueueFlush = "aw-flush"
	QueueSweep = "aw-sweep"
	QueueRetry = "aw-retry"
)

// clusterFlushQueues is the number of queues for flushes and drains on a cluster. All keys of a queue are in one slot, so one queue would
// be served by one node. With six, each third of the slots has at least one. More would cost a worker more polls.
const clusterFlushQueues = 6

// Queues are the queues of one installation. On a cluster the flushes and drains of a shard go to one of several queues: aw-flush,
// aw-flush-1, and so on. They are chosen by shard, so that two tasks with the same ID are in the same queue.
type Queues struct {
	prefix string
	flush  int // the number of queues for flushes
}

// QueuesIn returns the queues of an installation with the given prefix in the Redis of client, which only says whether it is a cluster.
func QueuesIn(client redis.Cmdable, prefix string) Queues {
	if _, cluster := client.(*redis.ClusterClient); cluster {
		return Queues{prefix, clusterFlushQueues}
	}
	return Queues{prefix, 1}
}

// Weights returns the weight of every queue in a worker, by its name with the prefix. Sweeps are rare and must not wait behind a long queue
// of flushes; retries may.
func (q Queues) Weights() map[string]int {
	weights := map[string]int{q.Sweep(): 3, q.Retry(): 1}
	for i := range q.flush {
		weights[q.flushQueue(i)] = max(6/q.flush, 1)
	}
	return weights
}

// Names returns the names of all queues, with the prefix, sorted.
func (q Queues) Names() []string { return slices.Sorted(maps.Keys(q.Weights())) }

// Flush returns the queue of a shard's flushes and drains.
func (q Queues) Flush(shard counter.Shard) string { return q.flushQueue(int(shard) % q.flush) }

// Sweep returns the queue of the periodic tasks.
func (q Queues) Sweep() string { return q.prefix + QueueSweep }

// Retry returns the queue of the retries.
func (q Queues) Retry() string { return q.prefix + QueueRetry }

// flushQueue returns the name of a queue for flushes. The first has the same name everywhere.
func (q Queues) flushQueue(i int) string {
	if i == 0 {
		return q.prefix + QueueFlush
	}
	return q.prefix + QueueFlush + "-" + strconv.Itoa(i)
}

// of returns the queue of a task of this package.
func (q Queues) of(task *asynq.Task) string {
	switch task.Type() {
	case TypeSweep, TypePurge, TypeEvict:
		return q.Sweep()
	case TypeRetry:
		return q.Retry()
	}
	if q.flush == 1 {
		return q.Flush(0)
	}
	var p struct {
		Shard counter.Shard `json:"shard"`
	}
	if json.Unmarshal(task.Payload(), &p) != nil || p.Shard < 0 {
		return q.Flush(0) // any queue will do for a task that no handler can read
	}
	return q.Flush(p.Shard)
}

// PausedKey is the Redis key that exists while the queue is paused, so that no worker takes tasks from it (PausedKey of asynq's
// internal/base, v0.26).
func PausedKey(queue string) string { return "asynq:{" + queue + "}:paused" }
