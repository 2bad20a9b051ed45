package scheduler

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	sweeps  prometheus.Counter
	skipped prometheus.Counter
	errors  prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) metrics {
	m := metrics{
		sweeps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_sweeps_enqueued_total",
			Help: "Sweeps that this scheduler enqueued, or found enqueued by another one.",
		}),
		skipped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_sweeps_skipped_total",
			Help: "Sweeps that this scheduler did not enqueue because no worker took the earlier ones.",
		}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "afterwrite_scheduler_errors_total",
			Help: "Calls to Redis with which this scheduler failed.",
		}),
	}
	registerer.MustRegister(m.sweeps, m.skipped, m.errors)
	return m
}
