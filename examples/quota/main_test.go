package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/client"
	"github.com/afterwrite/afterwrite/internal/local/localapi"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m, localapi.Leaks()...) }

func open(t *testing.T, url string, work func(context.Context, string) (string, error)) http.Handler {
	t.Helper()
	counters, err := client.New(url, client.Options{Attempts: 2})
	require.NoError(t, err)
	t.Cleanup(counters.Close)
	return service(counters, work)
}

func post(quota http.Handler, path string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	quota.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, path, nil))
	return answer
}

func TestUsersThatRaceGetExactlyTheirCredits(t *testing.T) {
	t.Parallel()
	var worked atomic.Int64
	quota := open(t, localapi.Start(t, localapi.Options{}), func(context.Context, string) (string, error) {
		worked.Add(1)
		return "done", nil
	})
	require.Equal(t, http.StatusTooManyRequests, post(quota, "/work?user=ann").Code, "nothing was granted")
	require.Equal(t, "50\n", post(quota, "/grant?user=ann&credits=50").Body.String())
	var served, refused atomic.Int64
	var requests sync.WaitGroup
	for range 20 {
		requests.Go(func() {
			for range 10 {
				switch post(quota, "/work?user=ann").Code {
				case http.StatusOK:
					served.Add(1)
				case http.StatusTooManyRequests:
					refused.Add(1)
				}
			}
		})
	}
	requests.Wait()
	require.EqualValues(t, 50, served.Load())
	require.EqualValues(t, 50, worked.Load())
	require.EqualValues(t, 150, refused.Load())
}

func TestWorkThatFailsGivesTheCreditBack(t *testing.T) {
	t.Parallel()
	failing := true
	quota := open(t, localapi.Start(t, localapi.Options{}), func(context.Context, string) (string, error) {
		if failing {
			return "", errors.New("broken")
		}
		return "done", nil
	})
	post(quota, "/grant?user=ann&credits=1")
	for range 3 {
		require.Equal(t, http.StatusInternalServerError, post(quota, "/work?user=ann").Code)
	}
	failing = false
	answer := post(quota, "/work?user=ann")
	require.Equal(t, http.StatusOK, answer.Code)
	require.Equal(t, "0", answer.Header().Get("Credits-Left"))
	require.Equal(t, http.StatusTooManyRequests, post(quota, "/work?user=ann").Code)
}

func TestWithoutAfterwriteNoWorkIsDone(t *testing.T) {
	t.Parallel()
	quota := open(t, "http://127.0.0.1:1", func(context.Context, string) (string, error) {
		t.Error("worked without a credit")
		return "", nil
	})
	require.Equal(t, http.StatusServiceUnavailable, post(quota, "/work?user=ann").Code)
	require.Equal(t, http.StatusServiceUnavailable, post(quota, "/grant?user=ann&credits=1").Code)
	require.Equal(t, http.StatusBadRequest, post(quota, "/grant?user=ann&credits=x").Code)
}
