package api

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/api/metric"
)

// metrics holds the api's metrics.
type metrics struct {
	*metric.Metrics

	streams prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		Metrics: metric.In(registry, slices.Collect(maps.Keys(problems))),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "afterwrite_streams",
			Help: "Requests to /v1/stream in progress. One process takes 64.",
		}),
	}
	registry.MustRegister(m.streams)
	return m
}
