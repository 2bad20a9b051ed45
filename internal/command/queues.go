package command

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/hibiken/asynq/x/metrics"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"

	"github.com/afterwrite/afterwrite/tasks"
)

// queuesTimeout bounds what a scrape waits for a Redis that does not answer, as that of the other collectors.
const queuesTimeout = 2 * time.Second

// queues exports Asynq's queues by Asynq's own collector, which writes a line to the log at each scrape that fails, and waits for
// as long as the client does: it is asked only while Redis answers for the queues. Two of its gauges end in _total, which
// Prometheus keeps for counters: here they do without.
type queues struct {
	redis redis.UniversalClient
	inner prometheus.Gatherer
	log   *slog.Logger

	mu      sync.Mutex
	failing bool // what was logged last
}

func newQueues(client redis.UniversalClient, log *slog.Logger) *queues {
	inner := prometheus.NewRegistry()
	inner.MustRegister(undescribed{metrics.NewQueueMetricsCollector(asynq.NewInspectorFromRedisClient(client))})
	return &queues{redis: client, inner: inner, log: log}
}

// undescribed is a collector that is not asked what it has before it is asked for it: Asynq's would ask Redis.
type undescribed struct{ prometheus.Collector }

// Describe implements prometheus.Collector.
func (undescribed) Describe(chan<- *prometheus.Desc) {}

// Describe implements prometheus.Collector. It says nothing, which makes the registry check what comes at each scrape.
func (*queues) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (q *queues) Collect(ch chan<- prometheus.Metric) {
	err := q.probe()
	if err == nil {
		err = q.collect(ch)
	}
	q.report(err)
}

// collect hands on what Asynq's collector has, which is counters and gauges only.
func (q *queues) collect(ch chan<- prometheus.Metric) error {
	families, err := q.inner.Gather()
	for _, family := range families {
		name, kind := family.GetName(), prometheus.CounterValue
		if family.GetType() == dto.MetricType_GAUGE {
			name, kind = strings.TrimSuffix(name, "_total"), prometheus.GaugeValue
		}
		for _, m := range family.GetMetric() {
			var names, values []string
			for _, label := range m.GetLabel() {
				names, values = append(names, label.GetName()), append(values, label.GetValue())
			}
			desc := prometheus.NewDesc(name, family.GetHelp(), names, nil)
			ch <- prometheus.MustNewConstMetric(desc, kind, m.GetCounter().GetValue()+m.GetGauge().GetValue(), values...)
		}
	}
	return err
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
