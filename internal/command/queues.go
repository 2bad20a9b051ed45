package command

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynq/x/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/tasks"
)

// queuesTimeout bounds what a scrape waits for a Redis that does not answer, as that of the other collectors.
const queuesTimeout = 2 * time.Second

// queues exports Asynq's queues by Asynq's own collector, which writes a line to the log at each scrape that fails, and waits for
// as long as the client does: it is asked only while Redis answers for the queues.
type queues struct {
	redis redis.UniversalClient
	inner prometheus.Collector
	log   *slog.Logger

	mu      sync.Mutex
	failing bool // what was logged last
}

func newQueues(client redis.UniversalClient, log *slog.Logger) *queues {
	inner := metrics.NewQueueMetricsCollector(asynq.NewInspectorFromRedisClient(client))
	return &queues{redis: client, inner: inner, log: log}
}

// Describe implements prometheus.Collector. It says nothing, which makes the registry check what comes at each scrape: Asynq's asks
// Redis for it, which has no queue at first.
func (*queues) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (q *queues) Collect(ch chan<- prometheus.Metric) {
	err := q.probe()
	q.report(err)
	if err == nil {
		q.inner.Collect(ch)
	}
}

// probe asks for a key of each slot that Asynq has on a cluster, in one round trip.
func (q *queues) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), queuesTimeout)
	defer cancel()
	pipe := q.redis.Pipeline()
	pipe.Exists(ctx, "asynq:queues") // base.AllQueues in its source
	for _, name := range []string{tasks.QueueFlush, tasks.QueueSweep, tasks.QueueRetry} {
		pipe.Exists(ctx, "asynq:{"+name+"}:pending") // base.PendingKey
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("ask redis for the queues: %w", err)
	}
	return nil
}

// report logs a change, once.
func (q *queues) report(err error) {
	q.mu.Lock()
	changed := q.failing != (err != nil)
	q.failing = err != nil
	q.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		q.log.Warn("the queues are not among the metrics", "error", err)
	default:
		q.log.Info("the queues are among the metrics again")
	}
}
