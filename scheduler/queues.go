package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	asynqmetrics "github.com/hibiken/asynq/x/metrics"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/tasks"
)

// queuesTimeout bounds how long a scrape waits for a Redis that does not answer. The other collectors have the same bound.
const queuesTimeout = 2 * time.Second

// Queues exports the metrics of Asynq's collector. Asynq's collector logs every failed scrape and waits for the client's timeout, so
// Queues calls it only if Redis answers a probe. It also removes the suffix _total from two gauges, because Prometheus reserves
// it for counters.
type Queues struct {
	redis  redis.UniversalClient
	prefix string
	queues tasks.Queues
	inner  prometheus.Gatherer
	log    *slog.Logger

	mu      sync.Mutex
	failing bool // the last logged state
}

// NewQueues returns a collector of the queues whose names begin with prefix. Only one process should export them, because every
// process would export the same values.
func NewQueues(client redis.UniversalClient, prefix string, log *slog.Logger) *Queues {
	inner := prometheus.NewRegistry()
	inner.MustRegister(undescribed{asynqmetrics.NewQueueMetricsCollector(asynq.NewInspectorFromRedisClient(tasks.OnRedisTime(client)))})
	return &Queues{redis: client, prefix: prefix, queues: tasks.QueuesIn(client, prefix), inner: inner, log: log}
}

// undescribed is a collector without a description. To describe itself, Asynq's collector would read from Redis.
type undescribed struct{ prometheus.Collector }

// Describe implements prometheus.Collector.
func (undescribed) Describe(chan<- *prometheus.Desc) {}

// Describe implements prometheus.Collector. It sends nothing, which makes the registry check the metrics at each scrape.
func (*Queues) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector. It blocks for about 2 s at most.
func (q *Queues) Collect(ch chan<- prometheus.Metric) {
	err := q.probe()
	if err == nil {
		err = q.collect(ch)
	}
	q.report(err)
}

// collect sends the metrics of Asynq's collector, which are only counters and gauges.
func (q *Queues) collect(ch chan<- prometheus.Metric) error {
	families, err := q.inner.Gather()
	for _, family := range families {
		name, kind := family.GetName(), prometheus.CounterValue
		if family.GetType() == dto.MetricType_GAUGE {
			name, kind = strings.TrimSuffix(name, "_total"), prometheus.GaugeValue
		}
		for _, m := range family.GetMetric() {
			labels := m.GetLabel()
			names, values := make([]string, 0, len(labels)), make([]string, 0, len(labels))
			for _, label := range labels {
				names, values = append(names, label.GetName()), append(values, label.GetValue())
			}
			if i := slices.Index(names, "queue"); i >= 0 && !strings.HasPrefix(values[i], q.prefix) {
				continue // a queue of another installation
			}
			desc := prometheus.NewDesc(name, family.GetHelp(), names, nil)
			ch <- prometheus.MustNewConstMetric(desc, kind, m.GetCounter().GetValue()+m.GetGauge().GetValue(), values...)
		}
	}
	return err
}

// probe reads one key in each cluster slot that Asynq uses, in one round trip.
func (q *Queues) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), queuesTimeout)
	defer cancel()
	pipe := q.redis.Pipeline()
	pipe.Exists(ctx, queuesKey)
	for _, name := range q.queues.Names() {
		pipe.Exists(ctx, "asynq:{"+name+"}:pending") // base.PendingKey
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("probe the queues in redis: %w", err)
	}
	return nil
}

// report logs when the queues become unavailable and when they are available again.
func (q *Queues) report(err error) {
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
