package process

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds the concurrent scrapes. Further ones are answered 503.
const maxScrapes = 4

// NewRegistry returns a registry with metrics of the Go runtime and of the process (memory, file descriptors; Linux only).
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// metricsHandler serves the remaining metrics if a collector fails, because operators need them most then.
func metricsHandler(registry *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry:            registry,
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

// registerBuildInfo exports afterwrite_build_info, whose value is always 1.
func registerBuildInfo(registry prometheus.Registerer, process, version string) {
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_build_info",
		Help: "1, with the process, its version and that of Go.",
		ConstLabels: prometheus.Labels{
			"process": process, "version": version, "goversion": runtime.Version(),
		},
	}, func() float64 { return 1 }))
}
