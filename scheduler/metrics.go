package scheduler

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	sweeps prometheus.Counter
	errors prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) metrics {
	m := metrics{
		sweeps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_sweeps_enqueued_total",
			Help: "Sweeps that this scheduler enqueued, or found enqueued by another one.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_scheduler_errors_total",
			Help: "Calls to Redis with which this scheduler failed.",
		}),
	}
	registerer.MustRegister(m.sweeps, m.errors)
	return m
}
