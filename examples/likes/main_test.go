package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m, localapi.Leaks()...) }

// open returns the service, with a Client that does not repeat: here the user does.
func open(t *testing.T, url string) http.Handler {
	t.Helper()
	counters, err := client.New(url, client.Options{Attempts: 1})
	require.NoError(t, err)
	t.Cleanup(counters.Close)
	return service(counters)
}

func send(likes http.Handler, method, path, click string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, path, nil)
	if click != "" {
		request.Header.Set("Click", click)
	}
	answer := httptest.NewRecorder()
	likes.ServeHTTP(answer, request)
	return answer
}

func TestClickThatIsSentAgainCountsOnce(t *testing.T) {
	t.Parallel()
	var lost sync.Once
	likes := open(t, localapi.Start(t, localapi.Options{Wrap: func(api http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			lost.Do(func() { // the first click is counted, and its answer gets lost
				api.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			})
			api.ServeHTTP(w, r)
		})
	}}))
	// Go's transport may send the first click again itself: with its Idempotency-Key that is safe, too.
	if first := send(likes, http.MethodPost, "/posts/42/like", "one"); first.Code != http.StatusOK {
		require.Equal(t, http.StatusServiceUnavailable, first.Code)
		require.Equal(t, "1", first.Header().Get("Retry-After"))
	}
	for range 2 {
		require.Equal(t, `{"likes":1}`, strings.TrimSpace(send(likes, http.MethodPost, "/posts/42/like", "one").Body.String()))
	}
	send(likes, http.MethodPost, "/posts/42/like", "two")
	send(likes, http.MethodPost, "/posts/7/like", "one")
	send(likes, http.MethodPost, "/posts/42/unlike", "three")
	require.JSONEq(t, `{"42":1,"7":1,"none":0}`, send(likes, http.MethodGet, "/posts?id=42&id=7&id=none", "").Body.String())
}

func TestRequestsThatAreWrong(t *testing.T) {
	t.Parallel()
	likes := open(t, localapi.Start(t, localapi.Options{}))
	require.Equal(t, http.StatusBadRequest, send(likes, http.MethodPost, "/posts/42/like", "").Code)
	require.Equal(t, http.StatusBadRequest, send(likes, http.MethodGet, "/posts", "").Code)
	require.Equal(t, http.StatusOK, send(likes, http.MethodPost, "/posts/42/like", "one").Code)
	require.Equal(t, http.StatusBadRequest, send(likes, http.MethodPost, "/posts/42/unlike", "one").Code, "another click's ID")
}

func TestUserMaySendTheClickAgainLater(t *testing.T) {
	t.Parallel()
	likes := open(t, "http://127.0.0.1:1")
	require.Equal(t, http.StatusServiceUnavailable, send(likes, http.MethodPost, "/posts/42/like", "one").Code)
	require.Equal(t, http.StatusServiceUnavailable, send(likes, http.MethodGet, "/posts?id=1", "").Code)
}
