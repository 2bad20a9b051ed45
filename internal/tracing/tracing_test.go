package tracing_test

import (
	"log/slog"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/tracing"
)

func TestWithoutAnEndpointNothingIsInstalled(t *testing.T) {
	t.Parallel()
	traces, err := tracing.Start(t.Context(), tracing.Options{Process: "api", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.Nil(t, traces)
	if traces.Provider() != nil || traces.OpenDB() != nil { // require.Nil also takes an interface with a nil pointer in it
		require.Fail(t, "something would be installed")
	}
	var client redis.UniversalClient // would panic if it were touched
	require.NoError(t, traces.Redis(client))
	require.NoError(t, traces.Close(t.Context()))
}
