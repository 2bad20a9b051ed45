package command

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHealthcheckGoesByTheStatus(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer server.Close()

	for _, test := range []struct{ answer, want int }{{200, exitOK}, {204, exitOK}, {404, exitFailure}, {503, exitFailure}} {
		status = test.answer
		require.Equal(t, test.want, runHere(t.Context(), "healthcheck", server.URL).status, "%d", test.answer)
	}
}

func TestHealthcheckSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	gone := server.URL
	server.Close()

	for _, url := range []string{gone, "not a URL", "http://"} {
		r := runHere(t.Context(), "healthcheck", url)
		require.Equal(t, exitFailure, r.status)
		require.NotEmpty(t, r.stderr)
	}
}

func TestHealthcheckDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	require.Equal(t, exitFailure, runHere(ctx, "healthcheck", server.URL).status)
}
