// Pageviews is a website that counts the views of its pages. A middleware adds each view to a Batcher, in memory, so a view costs no
// request to afterwrite, and a page is served although afterwrite is down.
//
//	AFTERWRITE_URL=http://127.0.0.1:8080 go run ./examples/pageviews
//	curl http://127.0.0.1:8090/about; curl http://127.0.0.1:8090/views?page=/about
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/afterwrite/afterwrite/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		slog.Error("pageviews", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	counters, err := client.New(cmp.Or(os.Getenv("AFTERWRITE_URL"), "http://127.0.0.1:8080"),
		client.Options{APIKey: os.Getenv("AFTERWRITE_API_KEY")})
	if err != nil {
		return err
	}
	defer counters.Close()
	views, err := counters.NewBatcher(client.BatcherOptions{Interval: 200 * time.Millisecond})
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8090"), Handler: site(counters, views), ReadHeaderTimeout: 5 * time.Second,
	}
	stopped := make(chan struct{})
	stopping := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(ctx) // waits for requests in progress, whose views count, too
	})
	err = server.ListenAndServe()
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		err = nil
	}
	stopping()
	return errors.Join(err, closeViews(views, 5*time.Second))
}

// closeViews sends the last views. Those that it could not send are in the error, so that the log has them.
func closeViews(views *client.Batcher, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := views.Close(ctx)
	if sums, ok := errors.AsType[*client.SumsError](err); ok {
		for _, sum := range sums.Sums {
			slog.Error("views may be lost", "key", sum.Key, "by", sum.By, "applied", sum.Applied.String())
		}
	}
	return err
}

// site is a website of two pages, and the number of views of each.
func site(counters *client.Client, views *client.Batcher) http.Handler {
	mux := http.NewServeMux()
	for _, page := range []string{"GET /{$}", "GET /about"} {
		mux.HandleFunc(page, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "Hello!") })
	}
	counted := countViews(views, mux)
	all := http.NewServeMux()
	all.Handle("/", counted)
	all.HandleFunc("GET /views", func(w http.ResponseWriter, r *http.Request) {
		counter, err := counters.Get(r.Context(), "page:"+r.FormValue("page"))
		switch {
		case client.IsCode(err, client.CodeNotFound):
			fmt.Fprintln(w, 0)
		case err != nil:
			http.Error(w, "the number of views is not available now", http.StatusServiceUnavailable)
		default:
			fmt.Fprintln(w, counter.Value)
		}
	})
	return all
}

// countViews counts the pages that next serves. Only successful ones: otherwise everybody could make counters, by asking for pages
// that do not exist.
func countViews(views *client.Batcher, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(recorder, r)
		if recorder.status != http.StatusOK {
			return
		}
		if err := views.Add("page:"+r.URL.Path, 1); err != nil { // full for a long time: views are not worth failing a page
			slog.WarnContext(r.Context(), "a view is not counted", "page", r.URL.Path, "error", err)
		}
	})
}

// statusRecorder notes the status of an answer.
type statusRecorder struct {
	http.ResponseWriter

	status int
}

// WriteHeader implements http.ResponseWriter.
func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (s *statusRecorder) Unwrap() http.ResponseWriter { return s.ResponseWriter }
