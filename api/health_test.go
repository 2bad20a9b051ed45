package api_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestHealthzSaysThatTheProcessIsUp(t *testing.T) {
	t.Parallel()
	b := serve(t, failing(counter.CodeCacheUnavailable, 0), api.Options{Version: "1.2.3"})

	a := b.send(t, http.MethodGet, "/healthz", "")

	require.Equal(t, http.StatusOK, a.StatusCode)
	require.JSONEq(t, `{"status":"ok","version":"1.2.3"}`, a.text)
}

// states is a Counters of whose dependencies some do not answer.
type states struct {
	counters

	redis, postgres error
}

var errUnbounded = errors.New("no deadline")

func (s states) Ready(ctx context.Context) (redis, postgres error) {
	if _, bounded := ctx.Deadline(); !bounded {
		return errUnbounded, errUnbounded
	}
	return s.redis, s.postgres
}

func TestReadyzNeedsRedisAndReportsPostgres(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		redis, postgres error
		status          int
		body            string
	}{
		{nil, nil, 200, `{"status":"ok","checks":{"redis":"ok","postgres":"ok"}}`},
		{nil, errSecret, 200, `{"status":"ok","checks":{"redis":"ok","postgres":"unreachable"}}`},
		{errSecret, nil, 503, `{"status":"unavailable","checks":{"redis":"unreachable","postgres":"ok"}}`},
		{errSecret, errSecret, 503, `{"status":"unavailable","checks":{"redis":"unreachable","postgres":"unreachable"}}`},
	} {
		b := serve(t, states{redis: c.redis, postgres: c.postgres}, api.Options{})

		a := b.send(t, http.MethodGet, "/readyz", "")

		require.Equal(t, c.status, a.StatusCode)
		require.JSONEq(t, c.body, a.text)
		require.Equal(t, c.redis != nil, a.Header.Get("Retry-After") == "1")
		if c.redis != nil || c.postgres != nil {
			require.Contains(t, b.log.String(), "hunter2")
		}
	}
}
