package auth

import "github.com/prometheus/client_golang/prometheus"

// requests describes the metric of a Keyring.
var requests = prometheus.NewDesc("afterwrite_api_requests_total",
	"Requests by the name of their API key. Requests without a known key, or that need none, have the empty name. "+
		"Requests to /healthz, /readyz, /metrics and for documentation are not counted.", []string{"key"}, nil)

// Describe implements prometheus.Collector.
func (r *Keyring) Describe(to chan<- *prometheus.Desc) { to <- requests }

// Collect implements prometheus.Collector. It has the names of the present keys only, so their number is bounded.
func (r *Keyring) Collect(to chan<- prometheus.Metric) {
	collect := func(k *Key) {
		to <- prometheus.MustNewConstMetric(requests, prometheus.CounterValue, float64(k.use.requests.Load()), k.Name)
	}
	collect(r.anonymous)
	for _, k := range r.current.Load().byName {
		collect(k)
	}
}
