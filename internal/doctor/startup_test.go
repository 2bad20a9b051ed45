package doctor

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestAProcessStartsWithWarningsAndLogsThem(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	options := withShards(localtest.Redis(t), 64) // AOF is off in the tests' Redis
	options.Postgres = openStore(t, "postgres://me@127.0.0.1:1/x")

	require.NoError(t, Startup(t.Context(), options, slog.New(slog.NewTextHandler(&log, nil))))

	require.Contains(t, log.String(), "AOF is OFF")
	require.Contains(t, log.String(), "start it, or correct DATABASE_URL")
}

func TestAProcessDoesNotStartOnARedisThatMayEvictItsCounters(t *testing.T) {
	t.Parallel()
	options := withShards(ownRedis(t, "--maxmemory-policy", "allkeys-lru"), 64)

	err := Startup(t.Context(), options, slog.New(slog.DiscardHandler))

	require.ErrorContains(t, err, "refusing to start: redis memory policy: allkeys-lru")
	require.ErrorContains(t, err, "redis-cli CONFIG SET maxmemory-policy noeviction")
	require.NotContains(t, err.Error(), "\n")
}

func TestTheFirstProcessSettlesTheSettingsOfANewRedis(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	quiet := slog.New(slog.DiscardHandler)

	require.NoError(t, Startup(t.Context(), withShards(client, 64), quiet))
	err := Startup(t.Context(), withShards(client, 32), quiet)

	require.ErrorContains(t, err, "set AFTERWRITE_SHARDS to 64")
}
