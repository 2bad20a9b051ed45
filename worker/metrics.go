package worker

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/afterwrite/afterwrite/internal/cache"
)

// Outcomes of an upsert.
const (
	outcomeOK    = "ok"
	outcomeError = "error"
)

type metrics struct {
	rows, refused, buried, deferred, reconciled, emptied, selfDrains, evicted prometheus.Counter

	batches, syncLag prometheus.Histogram
	duration         *prometheus.HistogramVec
	lastSweep        prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, postgresUp func() bool) *metrics {
	with := promauto.With(r)
	count := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		rows:    count("afterwrite_flushed_rows_total", "Rows written to Postgres."),
		refused: count("afterwrite_refused_rows_total", "Attempts to write a row that Postgres refused."),
		buried:  count("afterwrite_dead_letters_total", "Keys that became dead letters."),
		deferred: count("afterwrite_hindered_rows_total",
			"Deferrals of rows: another transaction had locked them, or they took longer than the statement timeout."),
		reconciled: count("afterwrite_reconciled_keys_total",
			"Keys repaired because Redis had lost writes that Postgres has."),
		emptied: count("afterwrite_redis_emptied_total",
			"Times that Redis was found to have lost its data, each counted by one worker."),
		selfDrains: count("afterwrite_self_drains_total",
			"Shards with overdue keys that this worker drained without a task, because none arrived."),
		evicted: count("afterwrite_evicted_entries_total", "Clean, idle entries that this worker removed from Redis."),
		batches: with.NewHistogram(prometheus.HistogramOpts{
			Name: "afterwrite_flush_batch_keys", Help: "Keys in one upsert.",
			Buckets: []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000},
		}),
		duration: with.NewHistogramVec(prometheus.HistogramOpts{
			Name: "afterwrite_flush_duration_seconds", Help: "Duration of one upsert, by outcome: ok or error.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"outcome"}),
		syncLag: with.NewHistogram(prometheus.HistogramOpts{
			Name:    "afterwrite_sync_lag_seconds",
			Help:    "Time from the first write of an epoch to the commit of its rows in Postgres, by row.",
			Buckets: []float64{.1, .25, .5, .75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 20, 30, 60, 90, 120, 180, 300, 600, 1800},
		}),
		lastSweep: with.NewGauge(prometheus.GaugeOpts{
			Name: "afterwrite_last_sweep_timestamp_seconds",
			Help: "When this worker began its last sweep, in seconds since 1970; 0: it has run none.",
		}),
	}
	for _, outcome := range []string{outcomeOK, outcomeError} { // so that alerts find a series of 0
		m.duration.WithLabelValues(outcome)
	}
	with.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_postgres_up", Help: "1 while this process's last contact with Postgres was good, else 0.",
	}, func() float64 {
		if postgresUp() {
			return 1
		}
		return 0
	})
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

// lag observes the sync lag of rows that were just committed: the time since the first key of their epoch was written.
func (m *metrics) lag(rows int, epoch *cache.Epoch) {
	lag := float64(epoch.At-epoch.Since)/1000 + time.Since(epoch.Read).Seconds()
	for range rows {
		m.syncLag.Observe(lag)
	}
}
