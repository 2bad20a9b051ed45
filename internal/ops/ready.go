package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

// probeTimeout bounds one check, and so, since they run side by side, the whole answer.
const probeTimeout = time.Second

// What /readyz says of a check. The reason of a failure is for the log only: it may hold hosts and user names.
const (
	stateOK          = "ok"
	stateUnreachable = "unreachable"
)

// Check is one thing that the process depends on.
type Check struct {
	// Name is the key in the answer: "redis".
	Name string
	// Required makes a failure turn the process not ready. A check that is not required is reported only.
	Required bool
	// Probe returns nil when the thing answers. It is given a second; one that does not keep to its context is not
	// waited for, and not started again until it has returned.
	Probe func(ctx context.Context) error
}

// readiness is the body of /readyz.
type readiness struct {
	Status string            `json:"status"`
	Checks map[string]string `json:"checks"`
}

// readyHandler answers 200 when every required check passes and 503 otherwise.
type readyHandler struct {
	checks []Check
	log    *slog.Logger

	flight singleflight.Group // however many ask, a dependency is probed by one at a time

	mu     sync.Mutex
	failed map[string]bool // by name; what was logged last
}

func newReadyHandler(checks []Check, log *slog.Logger) *readyHandler {
	return &readyHandler{checks: checks, log: log, failed: make(map[string]bool, len(checks))}
}

func (h *readyHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A client that hangs up is not a dependency that fails, so its going does not end the checks.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), probeTimeout)
	defer cancel()

	results := make([]error, len(h.checks))
	var running sync.WaitGroup
	for i, c := range h.checks {
		running.Go(func() { results[i] = h.run(ctx, c) })
	}
	running.Wait()

	body := readiness{Status: stateOK, Checks: make(map[string]string, len(h.checks))}
	status := http.StatusOK
	for i, c := range h.checks {
		h.report(c, results[i])
		body.Checks[c.Name] = stateOK
		if results[i] == nil {
			continue
		}
		body.Checks[c.Name] = stateUnreachable
		if c.Required {
			body.Status, status = "unavailable", http.StatusServiceUnavailable
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	writeJSON(w, status, text)
}

// run waits for the check's result until ctx is done. The probe itself has a context of its own, because others may be
// waiting for the same one.
func (h *readyHandler) run(ctx context.Context, c Check) error {
	result := h.flight.DoChan(c.Name, func() (_ any, err error) {
		defer func() {
			// singleflight would end the process.
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		probe, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
		defer cancel()
		return nil, c.Probe(probe)
	})
	select {
	case r := <-result:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// report logs a change of state, once: /readyz is asked every few seconds.
func (h *readyHandler) report(c Check, err error) {
	h.mu.Lock()
	changed := h.failed[c.Name] != (err != nil)
	h.failed[c.Name] = err != nil
	h.mu.Unlock()

	switch {
	case !changed:
	case err != nil:
		h.log.Warn("readiness check fails", "check", c.Name, "required", c.Required, "error", err)
	default:
		h.log.Info("readiness check passes again", "check", c.Name)
	}
}

func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client has gone: nobody is left to tell
}
