package ops

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds how many scrapes one process answers at once; further ones get 503.
const maxScrapes = 4

// NewRegistry returns a registry of the process's own, with the collectors of the Go runtime and of the process (its
// memory, its file descriptors; Linux only). The packages register theirs with it.
func NewRegistry() *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// metricsHandler goes on when one collector fails: the rest is what an operator then needs most.
func metricsHandler(registry *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		Registry:            registry,
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
	})
}

// RegisterBuildInfo exports afterwrite_build_info: always 1, its labels say which process of which version this is.
func RegisterBuildInfo(registry prometheus.Registerer, process, version string) {
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "afterwrite_build_info",
		Help: "1, with the process, its version and that of Go.",
		ConstLabels: prometheus.Labels{
			"process": process, "version": version, "goversion": runtime.Version(),
		},
	}, func() float64 { return 1 }))
}
