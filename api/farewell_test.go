package api_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestProcessThatIsToStopSaysSoBeforeItDoes(t *testing.T) {
	t.Parallel()
	var farewell api.Farewell
	server := httptest.NewServer(api.New(always(counter.Result{}), api.Options{Farewell: &farewell}))
	defer server.Close()
	ask := func(path string) (status int, body string, closes bool) {
		response, err := server.Client().Get(server.URL + path)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(text), response.Close
	}
	told, tell := context.WithCancel(t.Context())
	later, stop := farewell.Context(told, time.Hour)
	defer stop()
	status, _, closes := ask("/readyz")
	require.Equal(t, http.StatusOK, status)
	require.False(t, closes)

	tell()

	localtest.Eventually(t, patience, func() (bool, string) {
		status, body, _ := ask("/readyz")
		return status == http.StatusServiceUnavailable, body
	})
	_, body, closes := ask("/readyz")
	require.Contains(t, body, `"stopping"`)
	require.True(t, closes, "a client must open its next connection elsewhere")
	status, _, _ = ask("/healthz")
	require.Equal(t, http.StatusOK, status, "it still answers")
	require.NoError(t, later.Err())
}

func TestWithoutADelayTheEndComesAtOnce(t *testing.T) {
	t.Parallel()
	told, tell := context.WithCancel(t.Context())
	later, stop := new(api.Farewell).Context(told, 0)
	defer stop()
	tell()
	<-later.Done()
}
