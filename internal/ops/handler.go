package ops

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// HandlerOptions are what Handler needs.
type HandlerOptions struct {
	// Registry is what /metrics shows. Required.
	Registry *prometheus.Registry
	// Checks are what /readyz runs; none means always ready.
	Checks []Check
	// Logger gets the reasons of failing checks. Required.
	Logger *slog.Logger
	// Next serves every other path, untouched. Nil: 404.
	Next http.Handler
}

// Handler serves /healthz, /readyz and /metrics, and gives everything else to Next.
//
// It is not an http.ServeMux, because that redirects paths with "//" or "/../" in them to their clean form, and a
// counter's key may hold those.
func Handler(options HandlerOptions) http.Handler {
	next := options.Next
	if next == nil {
		next = http.NotFoundHandler()
	}
	routes := map[string]http.Handler{
		"/healthz": http.HandlerFunc(healthz),
		"/readyz":  newReadyHandler(options.Checks, options.Logger),
		"/metrics": metricsHandler(options.Registry),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, ok := routes[r.URL.Path]
		switch {
		case !ok:
			next.ServeHTTP(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed: it takes GET", http.StatusMethodNotAllowed)
		default:
			route.ServeHTTP(w, r)
		}
	})
}

// healthz says that the process runs and serves HTTP, whatever has become of Redis and Postgres: to restart the process
// would not bring them back.
func healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, []byte(`{"status":"ok"}`))
}
