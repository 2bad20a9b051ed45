package worker

import (
	"bytes"
	"context"
	"log/slog"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
)

// goroutines counts the distinct stacks of goroutines with a label; it is 0 if there are no such goroutines. A goroutine inherits its
// labels from the goroutine that started it.
func goroutines(t *testing.T, label string) int {
	t.Helper()
	var profile bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
	return strings.Count(profile.String(), label)
}

func TestWorkerThatCannotStartLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	c, err := config.FromMap(nil)
	require.NoError(t, err)
	client := localtest.Redis(t)
	postgres, err := store.Open(localtest.PostgresURL(t, nil), store.Options{Logger: slog.New(slog.DiscardHandler), MaxConns: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, postgres.Close()) })
	const label = "a worker that cannot start"
	w := New(Options{
		Config: c, Redis: client, Cache: cache.New(client, cache.Options{Shards: c.Shards, CleanTTL: c.CleanTTL}),
		Store: postgres, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, w.server.Start(w.handlers.mux())) // so that Run fails
	defer w.server.Shutdown()

	pprof.Do(t.Context(), pprof.Labels("test", label), func(ctx context.Context) {
		require.Positive(t, goroutines(t, label), "the profile must show the label of this goroutine")
		require.ErrorContains(t, w.Run(ctx), "already running")
	})

	require.Zero(t, goroutines(t, label))
}
