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

// queuesTimeout bounds how long a scrape waits for a Redis that does not answer, like that of the other collectors.
const queuesTimeout = 2 * time.Second

// Queues exports Asynq's queues by Asynq's own collector. That one logs a line at each scrape that fails, and waits as long as
// the client does, so it is asked only while Redis answers for the queues. Two of its gauges end in _total, which Prometheus
// reserves for counters; here they do not.
type Queues struct {
	redis  redis.UniversalClient
	prefix string
	inner  prometheus.Gatherer
	log    *slog.Logger

	mu      sync.Mutex
	failing bool // what was logged last
}

// NewQueues returns a collector of the queues whose names begin with prefix. They look the same from every process, so only one
// should export them.
func NewQueues(client redis.UniversalClient, prefix string, log *slog.Logger) *Queues {
	inner := prometheus.NewRegistry()
	inner.MustRegister(undescribed{asynqmetrics.NewQueueMetricsCollector(asynq.NewInspectorFromRedisClient(client))})
	return &Queues{redis: client, prefix: prefix, inner: inner, log: log}
}

// undescribed is a collector that is registered without a description. Asynq's would ask Redis for it.
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

// collect passes on what Asynq's collector has, which is counters and gauges only.
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
				continue // of another installation
			}
			desc := prometheus.NewDesc(name, family.GetHelp(), names, nil)
			ch <- prometheus.MustNewConstMetric(desc, kind, m.GetCounter().GetValue()+m.GetGauge().GetValue(), values...)
		}
	}
	return err
}

// probe asks for one key in each slot that Asynq uses on a cluster, in one round trip.
func (q *Queues) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), queuesTimeout)
	defer cancel()
	pipe := q.redis.Pipeline()
	pipe.Exists(ctx, queuesKey)
	for name := range tasks.Queues(q.prefix) {
		pipe.Exists(ctx, "asynq:{"+name+"}:pending") // base.PendingKey
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("ask redis for the queues: %w", err)
	}
	return nil
}

// report logs a change, once.
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
