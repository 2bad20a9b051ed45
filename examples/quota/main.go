// Quota is a service whose users have credits. A request takes one credit before the work, and none goes below 0, however many requests
// come at once: afterwrite checks the bound in the same step as it counts. Work that fails gives the credit back.
//
//	AFTERWRITE_URL=http://127.0.0.1:8080 go run ./examples/quota
//	curl -X POST 'http://127.0.0.1:8092/grant?user=ann&credits=2'
//	curl -X POST 'http://127.0.0.1:8092/work?user=ann'       # twice 200, then 429
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/afterwrite/afterwrite/client"
)

func main() {
	counters, err := client.New(cmp.Or(os.Getenv("AFTERWRITE_URL"), "http://127.0.0.1:8080"),
		client.Options{APIKey: os.Getenv("AFTERWRITE_API_KEY")})
	if err != nil {
		slog.Error("quota", "error", err)
		os.Exit(1)
	}
	work := func(_ context.Context, user string) (string, error) { return "worked for " + user, nil }
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8092"), Handler: service(counters, work), ReadHeaderTimeout: 5 * time.Second,
	}
	slog.Error("quota", "error", server.ListenAndServe())
	os.Exit(1)
}

// quota serves work for credits.
type quota struct {
	counters *client.Client
	work     func(ctx context.Context, user string) (string, error)
}

func service(counters *client.Client, work func(ctx context.Context, user string) (string, error)) http.Handler {
	q := quota{counters, work}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /grant", q.grant)
	mux.HandleFunc("POST /work", q.serve)
	return mux
}

// grant adds credits. A real service would do this when a user pays, with the payment's ID as Idempotency-Key.
func (q quota) grant(w http.ResponseWriter, r *http.Request) {
	credits, err := strconv.ParseInt(r.FormValue("credits"), 10, 64)
	if err != nil || credits < 1 || r.FormValue("user") == "" {
		http.Error(w, "use /grant?user=ann&credits=10", http.StatusBadRequest)
		return
	}
	left, err := q.counters.Increment(r.Context(), key(r.FormValue("user")), credits)
	if err != nil {
		unavailable(w, r, err)
		return
	}
	fmt.Fprintln(w, left.Value)
}

// serve takes a credit, and does the work.
func (q quota) serve(w http.ResponseWriter, r *http.Request) {
	user := r.FormValue("user")
	taken := rand.Text() // names this request, so that taking and giving back count once each, however often they are sent
	left, err := q.counters.Increment(r.Context(), key(user), -1, client.Min(0), client.IdempotencyKey(taken))
	switch {
	case client.IsCode(err, client.CodeOutOfBounds) && !errors.Is(err, client.ErrOutcomeUnknown):
		http.Error(w, "no credits left", http.StatusTooManyRequests)
		return
	case err != nil:
		// If the outcome is unknown, the credit may be gone without work. The log has the ID: an increment by -1 with it tells.
		unavailable(w, r, fmt.Errorf("take a credit of %s with the ID %s: %w", user, taken, err))
		return
	}
	result, err := q.work(r.Context(), user)
	if err != nil {
		q.giveBack(r.Context(), user, taken)
		http.Error(w, "the work failed; the credit was given back", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Credits-Left", strconv.FormatInt(left.Value, 10))
	fmt.Fprintln(w, result)
}

// giveBack gives a credit back, even if the user has gone.
func (q quota) giveBack(ctx context.Context, user, taken string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := q.counters.Increment(ctx, key(user), 1, client.IdempotencyKey(taken+"-back")); err != nil {
		slog.ErrorContext(ctx, "a credit was not given back", "user", user, "id", taken+"-back", "error", err)
	}
}

func key(user string) string { return "credits:" + user }

func unavailable(w http.ResponseWriter, r *http.Request, err error) {
	slog.WarnContext(r.Context(), "quota", "error", err)
	w.Header().Set("Retry-After", "1")
	http.Error(w, "try again later", http.StatusServiceUnavailable)
}
