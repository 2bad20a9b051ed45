package process

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
)

// pingTimeout bounds one ping and, since pings run concurrently, the answer of /readyz. Load balancers usually wait longer.
const pingTimeout = 2 * time.Second

// The states in /healthz and /readyz. The reason of a failure is only logged, because it may contain hosts and user names.
const (
	stateOK          = "ok"
	stateUnreachable = "unreachable" // a dependency that does not answer
	stateUnavailable = "unavailable" // the process, if a required dependency does not answer
	stateStopping    = "stopping"    // the process, during its shutdown delay
)

// Dependency is a server that the process uses.
type Dependency struct {
	// Name is the key in the answer of /readyz.
	Name string
	// Required makes the process not ready when Ping fails. Other dependencies are only reported.
	Required bool
	// Ping returns nil if the server answers. Its context ends after 2 s. Then /readyz does not wait for it, and does not call it again
	// before it has returned.
	Ping func(ctx context.Context) error
}

// Health serves /healthz, /readyz and /metrics of a process.
type Health struct {
	// Registry has the metrics for /metrics. Required.
	Registry *prometheus.Registry
	// Dependencies are pinged by /readyz; none means always ready.
	Dependencies []Dependency
	// Logger logs the reasons of failing pings. Required.
	Logger *slog.Logger
	// Version is shown at /healthz. Empty: omitted.
	Version string
	// Stopping reports whether the process is about to stop, so that /readyz fails. Nil: never.
	Stopping func() bool
}

// Handlers returns the handlers of /healthz, /readyz and /metrics, for GET and HEAD, by path.
func (h Health) Handlers() map[string]http.Handler {
	if h.Stopping == nil {
		h.Stopping = func() bool { return false }
	}
	return map[string]http.Handler{
		"/healthz": http.HandlerFunc(h.healthz),
		"/readyz":  &readyHandler{Health: h, failed: make(map[string]bool, len(h.Dependencies))},
		"/metrics": metricsHandler(h.Registry),
	}
}

// Handler serves Handlers, and passes all other requests to next unchanged. Nil: 404.
//
// It is not an http.ServeMux, which redirects paths with "//" or "/../" to their clean form: a counter's key may contain both.
func (h Health) Handler(next http.Handler) http.Handler {
	if next == nil {
		next = http.NotFoundHandler()
	}
	routes := h.Handlers()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route, ok := routes[r.URL.Path]
		switch {
		case !ok:
			next.ServeHTTP(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed: use GET or HEAD", http.StatusMethodNotAllowed)
		default:
			route.ServeHTTP(w, r)
		}
	})
}

// healthz answers 200 if the process serves HTTP, even without Redis and Postgres, because a restart of the process would not help.
func (h Health) healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Status  string `json:"status"`
		Version string `json:"version,omitempty"`
	}{stateOK, h.Version})
}

// readyHandler answers 200 if every required dependency answers and the process is not stopping, else 503.
type readyHandler struct {
	Health

	flight singleflight.Group // one ping of a dependency at a time, for all requests

	mu     sync.Mutex
	failed map[string]bool // last logged state by name
}

func (h *readyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A client that disconnects must not fail the pings.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), pingTimeout)
	defer cancel()

	results := make([]error, len(h.Dependencies))
	var running sync.WaitGroup
	for i, d := range h.Dependencies {
		running.Go(func() { results[i] = h.ping(ctx, d) })
	}
	running.Wait()

	status, state, checks := http.StatusOK, stateOK, make(map[string]string, len(h.Dependencies))
	for i, d := range h.Dependencies {
		h.report(d, results[i])
		checks[d.Name] = stateOK
		if results[i] == nil {
			continue
		}
		checks[d.Name] = stateUnreachable
		if d.Required {
			status, state = http.StatusServiceUnavailable, stateUnavailable
		}
	}
	if h.Stopping() {
		status, state = http.StatusServiceUnavailable, stateStopping
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, struct {
		Status string            `json:"status"`
		Checks map[string]string `json:"checks"`
	}{state, checks})
}

// ping waits for the result until ctx is done. The ping has a context of its own, because other requests may wait for it too.
func (h *readyHandler) ping(ctx context.Context, d Dependency) error {
	result := h.flight.DoChan(d.Name, func() (_ any, err error) {
		defer func() {
			// singleflight would crash the process.
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
		defer cancel()
		return nil, d.Ping(own)
	})
	select {
	case r := <-result:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// report logs changes of state only, because /readyz is requested every few seconds.
func (h *readyHandler) report(d Dependency, err error) {
	h.mu.Lock()
	changed := h.failed[d.Name] != (err != nil)
	h.failed[d.Name] = err != nil
	h.mu.Unlock()

	switch {
	case !changed:
	case err != nil:
		h.Logger.Warn("readiness check fails", "check", d.Name, "required", d.Required, "error", err)
	default:
		h.Logger.Info("readiness check passes again", "check", d.Name)
	}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // fails only if the client has disconnected
}
