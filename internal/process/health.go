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

// pingTimeout bounds one ping, and so the answer of /readyz, since all run at once. Load balancers usually wait longer.
const pingTimeout = 2 * time.Second

// What /healthz and /readyz say. The reason of a failure goes to the log only: it may hold hosts and user names.
const (
	stateOK          = "ok"
	stateUnreachable = "unreachable" // a dependency
	stateUnavailable = "unavailable" // the process, without a dependency that it requires
	stateStopping    = "stopping"    // the process, during its shutdown delay
)

// Dependency is a server that the process uses.
type Dependency struct {
	// Name is its key in the answer of /readyz.
	Name string
	// Required makes the process not ready when Ping fails. Other dependencies are reported only.
	Required bool
	// Ping returns nil when the server answers. It gets 2 s. One that outlasts its context is not waited for, and not
	// started again before it has returned.
	Ping func(ctx context.Context) error
}

// Health is what a process shows of itself at /healthz, /readyz and /metrics.
type Health struct {
	// Registry is what /metrics shows. Required.
	Registry *prometheus.Registry
	// Dependencies are pinged by /readyz; none means always ready.
	Dependencies []Dependency
	// Logger gets the reasons of failing pings. Required.
	Logger *slog.Logger
	// Version is shown by /healthz; empty: left out.
	Version string
	// Stopping reports that the process is about to stop, so that /readyz fails. Nil: never.
	Stopping func() bool
}

// Handlers returns the handlers of /healthz, /readyz and /metrics by path. They are for GET and HEAD.
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

// Handler serves Handlers, and gives every other path to next, untouched. Nil: 404.
//
// It is no http.ServeMux, because that redirects paths with "//" or "/../" to their clean form. A counter's key may hold both.
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
			http.Error(w, "method not allowed: it takes GET", http.StatusMethodNotAllowed)
		default:
			route.ServeHTTP(w, r)
		}
	})
}

// healthz says that the process runs and serves HTTP, even without Redis and Postgres: restarting the process would not
// bring them back.
func (h Health) healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Status  string `json:"status"`
		Version string `json:"version,omitempty"`
	}{stateOK, h.Version})
}

// readyHandler answers 200 when every required dependency answers and the process is not stopping, and 503 otherwise.
type readyHandler struct {
	Health

	flight singleflight.Group // one ping of a dependency at a time, however many clients ask

	mu     sync.Mutex
	failed map[string]bool // by name; what was logged last
}

func (h *readyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A client that hangs up is not a dependency that fails, so it does not end the pings.
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
			w.Header().Set("Retry-After", "1")
		}
	}
	if h.Stopping() {
		status, state = http.StatusServiceUnavailable, stateStopping
	}
	writeJSON(w, status, struct {
		Status string            `json:"status"`
		Checks map[string]string `json:"checks"`
	}{state, checks})
}

// ping waits for the result until ctx is done. The ping itself has a context of its own, because other requests may be waiting
// for the same one.
func (h *readyHandler) ping(ctx context.Context, d Dependency) error {
	result := h.flight.DoChan(d.Name, func() (_ any, err error) {
		defer func() {
			// singleflight would end the process.
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

// report logs a change of state, once: /readyz is asked every few seconds.
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
	_, _ = w.Write(append(text, '\n')) // an error means that the client has gone
}
