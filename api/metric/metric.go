// Package metric has the metrics that the protocols of the api share. A write counts the same, however it was sent.
package metric

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// durationBuckets range from 100 µs, the shortest call to Redis, to 10 s, longer than any call to Redis may take.
var durationBuckets = []float64{
	100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1, 2.5, 5, 10,
}

// Metrics holds the shared metrics. Labels are resolved once, not for each request.
type Metrics struct {
	writes   [counter.Delete + 1]prometheus.Counter // by counter.Kind, nil for reads
	rejected map[counter.Code]prometheus.Counter
	replayed prometheus.Counter
	duration prometheus.Histogram
}

// In returns the metrics of a registry. The first call registers them. codes are the errors of the caller's protocol.
func In(registry prometheus.Registerer, codes []counter.Code) *Metrics {
	writes := register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_writes_total",
		Help: "Accepted write operations. Each operation of a batch or a stream counts.",
	}, []string{"op"}))
	rejected := register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "afterwrite_rejected_total",
		Help: "Requests and batch operations that were answered with a problem, by reason (the problem's code).",
	}, []string{"reason"}))
	m := &Metrics{
		rejected: make(map[counter.Code]prometheus.Counter, len(codes)),
		replayed: register(registry, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_replayed_total",
			Help: "Operations that were not carried out because an earlier one had the same idempotency key. They got its answer.",
		})),
		duration: register(registry, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "afterwrite_write_duration_seconds",
			Help: "Duration of a write request after decoding. Requests that wait for Postgres are not counted. " +
				"A batch counts once, a stream once for each group.",
			Buckets: durationBuckets,
		})),
	}
	for _, kind := range []counter.Kind{counter.Increment, counter.Set, counter.Delete} {
		m.writes[kind] = writes.WithLabelValues(kind.String())
	}
	for _, code := range codes { // create all series now: an alert needs the series to start at 0
		m.rejected[code] = rejected.WithLabelValues(string(code))
	}
	return m
}

// register returns the collector, or the one of the same name that the registry has.
func register[C prometheus.Collector](registry prometheus.Registerer, c C) C {
	err := registry.Register(c)
	if before, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := before.ExistingCollector.(C); ok {
			return same
		}
	}
	if err != nil {
		panic(err) // another metric has the name: a bug
	}
	return c
}

// CountSuccess counts n writes or replayed operations. It does not count reads.
func (m *Metrics) CountSuccess(kind counter.Kind, n int, replayed bool) {
	if replayed {
		m.replayed.Add(float64(n))
	} else if writes := m.writes[kind]; writes != nil {
		writes.Add(float64(n))
	}
}

// Reject counts n operations that failed. An unknown code counts as internal.
func (m *Metrics) Reject(code counter.Code, n int) {
	rejected, ok := m.rejected[code]
	if !ok {
		rejected = m.rejected[counter.CodeInternal]
	}
	rejected.Add(float64(n))
}

// ObserveWrite records the duration of a write that began at start.
func (m *Metrics) ObserveWrite(start time.Time) { m.duration.Observe(time.Since(start).Seconds()) }
