package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// The dashboard answers 503 while Redis does not, with the page.
func TestTheOverviewIsReadAtEveryStatus(t *testing.T) {
	t.Parallel()
	body := `<div class="state bad" data-level="bad" data-news="Redis hasn&#39;t answered.">`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()

	level, sentence := readOverview(t.Context(), server.URL)
	require.Equal(t, [2]string{"bad", "Redis hasn't answered."}, [2]string{level, sentence})

	body = "bad gateway"
	level, sentence = readOverview(t.Context(), server.URL)
	require.Equal(t, [2]string{"", "the dashboard answers 503 without the overview"}, [2]string{level, sentence})

	server.Close()
	_, sentence = readOverview(t.Context(), server.URL)
	require.Equal(t, "the dashboard does not answer within 2s", sentence)
}
