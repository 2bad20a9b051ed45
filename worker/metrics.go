package worker

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/store"
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

	logger    *slog.Logger
	brokenFor time.Duration
	mu        sync.Mutex
	broken    map[string]breakage // by mapping

	mappedRows, mappedMissing, mappedRefused *prometheus.CounterVec // by mapping
}

// breakage is the last failure of a mapping whose table has a wrong schema or permission.
type breakage struct {
	err error
	at  time.Time
}

// leastBrokenFor is the least time for which a mapping counts as broken after its last failure. Its counters are tried again more often, by
// one worker or another. So a worker that gets none of them does not call a repaired mapping broken for ever.
const leastBrokenFor = time.Minute

func newMetrics(r prometheus.Registerer, logger *slog.Logger, mappings *mapping.Mappings, postgresUp func() bool) *metrics {
	with := promauto.With(r)
	count := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		logger: logger, broken: make(map[string]breakage), brokenFor: leastBrokenFor,
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
	byMapping := []string{"mapping"}
	m.mappedRows = with.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_mapping_rows_total", Help: "Columns of mapped tables that were written, by mapping.",
	}, byMapping)
	m.mappedMissing = with.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_mapping_missing_total", Help: "Counters that were flushed without a row in their mapped table, by mapping.",
	}, byMapping)
	m.mappedRefused = with.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_mapping_refused_total", Help: "Attempts to write a mapped column that were refused, by mapping.",
	}, byMapping)
	for _, mapped := range mappings.All() { // so that alerts find a series of 0
		m.mappedRows.WithLabelValues(mapped.Name)
		m.mappedMissing.WithLabelValues(mapped.Name)
		m.mappedRefused.WithLabelValues(mapped.Name)
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "afterwrite_mapping_broken",
			Help:        "1 while the table of a mapping cannot be written: its schema or a permission is wrong.",
			ConstLabels: prometheus.Labels{"mapping": mapped.Name},
		}, func() float64 {
			if m.isBroken(mapped.Name) {
				return 1
			}
			return 0
		})
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

// mapped counts what was written to mapped tables. A mapping that was written is not broken.
func (m *metrics) mapped(upserted *store.Upserted) {
	for _, count := range upserted.Mapped {
		m.mappedRows.WithLabelValues(count.Mapping).Add(float64(count.Rows))
		m.mappedMissing.WithLabelValues(count.Mapping).Add(float64(count.Missing))
		if m.repaired(count.Mapping) {
			m.logger.Info("a mapped table can be written again", "mapping", count.Mapping)
		}
	}
}

// breaks records that a mapping is broken, and logs that once.
func (m *metrics) breaks(name string, err error) {
	known := m.isBroken(name)
	m.mu.Lock()
	m.broken[name] = breakage{err, time.Now()}
	m.mu.Unlock()
	if !known {
		m.logger.Error("a mapped table cannot be written: its counters wait in redis until it is repaired; "+
			"`afterwrite mappings check` says how", "mapping", name, "error", err)
	}
}

// repaired records that a mapping is not broken, and reports whether it was.
func (m *metrics) repaired(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, was := m.broken[name]
	delete(m.broken, name)
	return was
}

func (m *metrics) isBroken(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, found := m.broken[name]
	return found && time.Since(last.at) < m.brokenFor
}

// brokenMappings returns the errors of the broken mappings, by name.
func (m *metrics) brokenMappings() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	texts := make(map[string]string, len(m.broken))
	for name, last := range m.broken {
		if time.Since(last.at) >= m.brokenFor {
			continue
		}
		err := last.err
		if failed, ok := errors.AsType[*store.MappingError](err); ok {
			err = failed.Err // without the name
		}
		texts[name] = err.Error()
	}
	return texts
}

// refuse counts an attempt at a row that Postgres refused.
func (m *metrics) refuse(reason error) {
	m.refused.Inc()
	if failed, ok := errors.AsType[*store.MappingError](reason); ok {
		m.mappedRefused.WithLabelValues(failed.Mapping).Inc()
	}
}
