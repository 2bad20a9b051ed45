package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	lag      prometheus.Histogram
	refused  prometheus.Counter
	buried   prometheus.Counter
	hindered prometheus.Counter

	reconciled prometheus.Counter
	emptied    prometheus.Counter
	selfDrains prometheus.Counter
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
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "afterwrite_sync_lag_seconds", Help: "From the first unsynced write of a counter to its commit in Postgres.",
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
		Help: "Rows put aside for 5 s, each time counted: somebody else held them locked, or one took longer than the statement timeout.",
	})
	for _, outcome := range []string{outcomeOK, outcomeError} { // a series that is 0 can be alerted on
		m.duration.WithLabelValues(outcome)
	}
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
	r.MustRegister(m.rows, m.batches, m.duration, m.lag, m.refused, m.buried, m.hindered, m.reconciled, m.emptied, m.selfDrains,
		m.lastSweep, up)
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

// committed counts rows of a batch that has just been committed.
func (m *metrics) committed(rows int, b batch) {
	m.rows.Add(float64(rows))
	now := b.At + time.Since(b.peeked).Milliseconds()
	for _, e := range b.entries {
		if !e.Parked && e.DirtySince <= b.At {
			m.lag.Observe(float64(now-e.DirtySince) / 1000)
		}
	}
}
