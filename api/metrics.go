package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// durationBuckets span 100 µs, the least that a call to Redis takes, to 10 s, the most that its client waits.
var durationBuckets = []float64{
	100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10,
}

// metrics holds what the api counts. Labels are resolved here, not for each request.
type metrics struct {
	writes   [counter.Delete + 1]prometheus.Counter // by counter.Kind, nil for reads
	rejected map[counter.Code]prometheus.Counter
	replayed prometheus.Counter
	duration prometheus.Histogram
}

func newMetrics(registry prometheus.Registerer) *metrics {
	writes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_writes_total",
		Help: "Operations that were accepted, those of batches counted one by one.",
	}, []string{"op"})
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_rejected_total",
		Help: "Requests, and operations in batches, that were answered with a problem, by its code.",
	}, []string{"reason"})
	m := &metrics{
		rejected: make(map[counter.Code]prometheus.Counter),
		replayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_replayed_total",
			Help: "Operations that were answered as the earlier one with their idempotency key was, and not carried out again.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "afterwrite_write_duration_seconds",
			Help:    "Time from a decoded write request (a batch counts once) to its outcome.",
			Buckets: durationBuckets,
		}),
	}
	registry.MustRegister(writes, rejected, m.replayed, m.duration)
	for _, kind := range []counter.Kind{counter.Increment, counter.Set, counter.Delete} {
		m.writes[kind] = writes.WithLabelValues(kind.String())
	}
	for code := range problems { // all from the start, since alerts need a series that is 0
		m.rejected[code] = rejected.WithLabelValues(string(code))
	}
	return m
}

// succeeded counts an operation that succeeded: a write, a replayed one, or nothing for a read.
func (m *metrics) succeeded(kind counter.Kind, replayed bool) {
	if replayed {
		m.replayed.Inc()
	} else if writes := m.writes[kind]; writes != nil {
		writes.Inc()
	}
}

func (m *metrics) reject(code counter.Code) {
	rejected, ok := m.rejected[code]
	if !ok {
		rejected = m.rejected[counter.CodeInternal]
	}
	rejected.Inc()
}

func (m *metrics) wrote(since time.Time) {
	m.duration.Observe(time.Since(since).Seconds())
}
