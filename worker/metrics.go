package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// The outcomes of an upsert.
const (
	outcomeOK    = "ok"
	outcomeError = "error"
)

type metrics struct {
	rows     prometheus.Counter
	batches  prometheus.Histogram
	duration *prometheus.HistogramVec
	syncLag  prometheus.Histogram
	refused  prometheus.Counter
	buried   prometheus.Counter
	hindered prometheus.Counter

	reconciled prometheus.Counter
	emptied    prometheus.Counter
	selfDrains prometheus.Counter
	evicted    prometheus.Counter
	lastSweep  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, postgresUp func() bool) *metrics {
	m := &metrics{
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_flushed_rows_total", Help: "Rows that Postgres took.",
		}),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "afterwrite_flush_batch_keys", Help: "Keys in one upsert.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000},
		}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "afterwrite_flush_duration_seconds", Help: "Duration of one upsert, by outcome: ok or error.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"outcome"}),
		syncLag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "afterwrite_sync_lag_seconds", Help: "From the first write of an epoch to the commit of each of its rows in Postgres.",
			Buckets: []float64{.1, .25, .5, .75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 20, 30, 60, 90, 120, 180, 300, 600, 1800},
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_refused_rows_total", Help: "Rows that Postgres refused, each attempt counted.",
		}),
		buried: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_dead_letters_total", Help: "Keys that became dead letters.",
		}),
		selfDrains: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_self_drains_total",
			Help: "Shards with overdue keys that this worker drained without a task, because none arrived.",
		}),
	}
	m.hindered = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "afterwrite_hindered_rows_total",
		Help: "Rows put off for a while, each time counted: another transaction held them locked, " +
			"or one took longer than the statement timeout.",
	})
	for _, outcome := range []string{outcomeOK, outcomeError} { // a series that is 0 can be alerted on
		m.duration.WithLabelValues(outcome)
	}
	m.evicted = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "afterwrite_evicted_entries_total",
		Help: "Entries that were clean and idle, and that this worker removed from Redis.",
	})
	m.lastSweep = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "afterwrite_last_sweep_timestamp_seconds",
		Help: "When this worker began its last sweep, in seconds since 1970; 0: it has run none.",
	})
	m.reconciled = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "afterwrite_reconciled_keys_total",
		Help: "Keys that Redis had lost writes of, which Postgres had, and that were mended.",
	})
	m.emptied = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "afterwrite_redis_emptied_total",
		Help: "Times that Redis was found without the data it had, each counted by one of the workers that knew it before.",
	})
	up := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_postgres_up", Help: "1 while this process's last contact with Postgres was good, else 0.",
	}, func() float64 {
		if postgresUp() {
			return 1
		}
		return 0
	})
	r.MustRegister(m.rows, m.batches, m.duration, m.syncLag, m.refused, m.buried, m.hindered, m.reconciled, m.emptied, m.selfDrains,
		m.evicted, m.lastSweep, up)
	return m
}

func (m *metrics) flush(keys int, took time.Duration, err error) {
	outcome := outcomeOK
	if err != nil {
		outcome = outcomeError
	}
	m.batches.Observe(float64(keys))
	m.duration.WithLabelValues(outcome).Observe(took.Seconds())
}

// lag observes the lag of rows that were just committed: from when the first key of their epoch was written.
func (m *metrics) lag(rows int, epoch *cache.Epoch) {
	lag := float64(epoch.At-epoch.Since)/1000 + time.Since(epoch.Read).Seconds()
	for range rows {
		m.syncLag.Observe(lag)
	}
}
