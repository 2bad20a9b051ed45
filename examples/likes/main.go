// Likes is a small service that counts likes of posts. Each click of a user has an ID, which the page makes and sends again when it has
// got no answer. It becomes the Idempotency-Key, so a click counts once.
//
//	AFTERWRITE_URL=http://127.0.0.1:8080 go run ./examples/likes
//	curl -X POST http://127.0.0.1:8091/posts/42/like -H 'Click: 5f0c'    # send it twice: {"likes":1} both times
//	curl 'http://127.0.0.1:8091/posts?id=42&id=43'                       # {"42":1,"43":0}
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/afterwrite/afterwrite/client"
)

func main() {
	counters, err := client.New(cmp.Or(os.Getenv("AFTERWRITE_URL"), "http://127.0.0.1:8080"),
		client.Options{APIKey: os.Getenv("AFTERWRITE_API_KEY")})
	if err != nil {
		slog.Error("likes", "error", err)
		os.Exit(1)
	}
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8091"), Handler: service(counters), ReadHeaderTimeout: 5 * time.Second,
	}
	slog.Error("likes", "error", server.ListenAndServe())
	os.Exit(1)
}

// likes serves the likes in counters.
type likes struct{ counters *client.Client }

func service(counters *client.Client) http.Handler {
	l := likes{counters}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /posts/{id}/like", l.add(1))
	mux.HandleFunc("POST /posts/{id}/unlike", l.add(-1))
	mux.HandleFunc("GET /posts", l.list)
	return mux
}

// maxPosts bounds a list.
const maxPosts = 100

// add counts a click.
func (l likes) add(by int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		click := r.Header.Get("Click")
		if click == "" {
			http.Error(w, "send a random ID of this click in the header Click, and the same one if you send it again",
				http.StatusBadRequest)
			return
		}
		likes, err := l.counters.Increment(r.Context(), key(r.PathValue("id")), by, client.IdempotencyKey(click))
		if err != nil {
			fail(w, r, err)
			return
		}
		answer(w, map[string]int64{"likes": likes.Value})
	}
}

// list answers with the likes of many posts, which it reads with one request.
func (l likes) list(w http.ResponseWriter, r *http.Request) {
	ids := r.URL.Query()["id"]
	if len(ids) == 0 || len(ids) > maxPosts {
		http.Error(w, "ask for 1 to 100 posts: /posts?id=1&id=2", http.StatusBadRequest)
		return
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = key(id)
	}
	results, err := l.counters.Read(r.Context(), keys...)
	if err != nil {
		fail(w, r, err)
		return
	}
	list := make(map[string]int64, len(ids))
	for i, result := range results {
		if result.Err != nil && !client.IsCode(result.Err, client.CodeNotFound) {
			fail(w, r, result.Err)
			return
		}
		list[ids[i]] = result.Value // 0 if nobody has liked it yet
	}
	answer(w, list)
}

func key(post string) string { return "likes:" + post }

// fail answers with what the user can do.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	slog.WarnContext(r.Context(), "likes", "error", err)
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case ok && (e.Code == client.CodeIdempotencyKeyReused || e.Code == client.CodeInvalidIdempotencyKey || e.Code == client.CodeInvalidKey):
		http.Error(w, e.Detail, http.StatusBadRequest)
	default: // also if the outcome is unknown: sent again with the same ID, the click counts once
		w.Header().Set("Retry-After", "1")
		http.Error(w, "send the click again, with the same ID", http.StatusServiceUnavailable)
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		slog.Warn("likes", "error", err) // the user has gone
	}
}
