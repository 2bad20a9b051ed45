package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// durationBuckets range from 100 µs, the shortest call to Redis, to 10 s, longer than any call to Redis may take.
var durationBuckets = []float64{
	100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10,
}

// metrics holds the api's metrics. Labels are resolved once, not for each request.
type metrics struct {
	writes   [counter.Delete + 1]prometheus.Counter // by counter.Kind, nil for reads
	rejected map[counter.Code]prometheus.Counter
	replayed prometheus.Counter
	duration prometheus.Histogram
	streams  prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) *metrics {
	writes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_writes_total",
		Help: "Accepted write operations. Each operation of a batch or a stream counts.",
	}, []string{"op"})
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_rejected_total",
		Help: "Requests and batch operations that were answered with a problem, by reason (the problem's code).",
	}, []string{"reason"})
	m := &metrics{
		rejected: make(map[counter.Code]prometheus.Counter),
		replayed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_replayed_total",
			Help: "Operations that were not carried out because an earlier one had the same idempotency key. They got its answer.",
		}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "afterwrite_write_duration_seconds",
			Help: "Duration of a write request after decoding. Requests that wait for Postgres are not counted. " +
				"A batch counts once, a stream once for each group.",
			Buckets: durationBuckets,
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "afterwrite_streams",
			Help: "Requests to /v1/stream in progress. One process takes 64.",
		}),
	}
	registry.MustRegister(writes, rejected, m.replayed, m.duration, m.streams)
	for _, kind := range []counter.Kind{counter.Increment, counter.Set, counter.Delete} {
		m.writes[kind] = writes.WithLabelValues(kind.String())
	}
	for code := range problems { // create all series now: an alert needs the series to start at 0
		m.rejected[code] = rejected.WithLabelValues(string(code))
	}
	return m
}

// countSuccess counts a write or a replayed operation. It does not count reads.
func (m *metrics) countSuccess(kind counter.Kind, replayed bool) {
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

func (m *metrics) observeWrite(start time.Time) {
	m.duration.Observe(time.Since(start).Seconds())
}
