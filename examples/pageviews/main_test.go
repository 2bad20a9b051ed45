package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m, localapi.Leaks()...) }

func get(site http.Handler, path string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	site.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	return answer
}

func setup(t *testing.T, url string) (*client.Client, *client.Batcher) {
	t.Helper()
	counters, err := client.New(url, client.Options{Attempts: 1})
	require.NoError(t, err)
	t.Cleanup(counters.Close)
	views, err := counters.NewBatcher(client.BatcherOptions{})
	require.NoError(t, err)
	return counters, views
}

func TestViewsOfPagesAreCounted(t *testing.T) {
	t.Parallel()
	counters, views := setup(t, localapi.Start(t, localapi.Options{}))
	site := site(counters, views)
	var visitors sync.WaitGroup
	for range 20 {
		visitors.Go(func() {
			for range 10 {
				get(site, "/about")
			}
		})
	}
	visitors.Wait()
	require.Equal(t, http.StatusNotFound, get(site, "/wp-admin").Code)
	require.NoError(t, views.Flush(t.Context()))
	require.Equal(t, "200\n", get(site, "/views?page=/about").Body.String())
	require.Equal(t, "0\n", get(site, "/views?page=/").Body.String())
	_, err := counters.Get(t.Context(), "page:/wp-admin")
	require.True(t, client.IsCode(err, client.CodeNotFound), err)
	require.NoError(t, closeViews(views, time.Minute))
}

func TestPagesAreServedWithoutAfterwrite(t *testing.T) {
	t.Parallel()
	counters, views := setup(t, "http://127.0.0.1:1")
	site := site(counters, views)
	answer := get(site, "/")
	require.Equal(t, http.StatusOK, answer.Code)
	require.Contains(t, answer.Body.String(), "Hello")
	require.Equal(t, http.StatusServiceUnavailable, get(site, "/views?page=/").Code)
	require.ErrorContains(t, closeViews(views, time.Millisecond), `+1 of "page:/" (applied: no)`)
}

func TestRunServesUntilItIsStopped(t *testing.T) {
	url := localapi.Start(t, localapi.Options{})
	t.Setenv("AFTERWRITE_URL", url)
	t.Setenv("ADDR", "127.0.0.1:0")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop()
	require.NoError(t, <-ended)
	t.Setenv("ADDR", "no port")
	require.ErrorContains(t, run(t.Context()), "missing port")
}
