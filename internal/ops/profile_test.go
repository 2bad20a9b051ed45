package ops_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/ops"
)

func TestProfilesAreServedOnLoopbackUntilTheEnd(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	require.NoError(t, ops.ServeProfiles(ctx, slog.New(slog.NewTextHandler(&log, nil))))
	url := regexp.MustCompile(`url=(http://127\.0\.0\.1:\d+/debug/pprof/)`).FindStringSubmatch(log.String())
	require.NotNil(t, url, log.String())

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) (int, []byte, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url[1]+path, http.NoBody)
		require.NoError(t, err)
		response, err := client.Do(request)
		if err != nil {
			return 0, nil, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, body, err
	}

	status, body, err := get("goroutine?debug=1")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, string(body), "goroutine profile")

	stop()
	require.Eventually(t, func() bool {
		_, _, err := get("goroutine?debug=1")
		return err != nil
	}, 10*time.Second, 10*time.Millisecond)
}
