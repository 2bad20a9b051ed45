package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
)

func TestDefaults(t *testing.T) {
	t.Parallel()
	c, err := config.FromMap(map[string]string{})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8080", c.APIAddr)
	require.Equal(t, time.Second, c.FlushInterval)
	require.Equal(t, 1000, c.FlushBatch)
	require.Equal(t, 16, c.Shards)
	require.False(t, c.ShardsSet)
	require.Equal(t, ".afterwrite", c.DataDir)
	require.Equal(t, c.APIAddr, c.Addr(c.APIAddr))
	require.ErrorContains(t, c.RequireRedis(), "REDIS_URL")
	require.ErrorContains(t, c.RequirePostgres(), "DATABASE_URL")
}

func TestWhetherShardsWereSetIsKnown(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": false, "16": true, "64": true} {
		c, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": value})
		require.NoError(t, err)
		require.Equal(t, want, c.ShardsSet, value)
	}
}

func TestPortWins(t *testing.T) {
	t.Parallel()
	c, err := config.FromMap(map[string]string{"PORT": "5000"})
	require.NoError(t, err)
	require.Equal(t, "0.0.0.0:5000", c.Addr(c.APIAddr))
}

func TestEveryBadVariableIsNamed(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"AFTERWRITE_FLUSH_INTERVAL":     "10ms",
		"AFTERWRITE_FLUSH_BATCH":        "0",
		"AFTERWRITE_SWEEP_INTERVAL":     "-5s",
		"AFTERWRITE_MAX_DIRTY":          "0",
		"AFTERWRITE_CLEAN_TTL":          "1ms",
		"AFTERWRITE_IDEMPOTENCY_TTL":    "0s",
		"AFTERWRITE_WAIT_REPLICAS":      "0",
		"AFTERWRITE_SHARDS":             "5000",
		"AFTERWRITE_MAX_ATTEMPTS":       "0",
		"AFTERWRITE_RETRY_BACKOFF":      "0s",
		"AFTERWRITE_TOMBSTONE_TTL":      "1s",
		"AFTERWRITE_WORKER_CONCURRENCY": "0",
		"AFTERWRITE_LOG_LEVEL":          "loud",
		"AFTERWRITE_LOG_FORMAT":         "xml",
		"AFTERWRITE_API_ADDR":           "8080",
		"PORT":                          "70000",
	} {
		_, err := config.FromMap(map[string]string{name: value})
		require.ErrorContains(t, err, name)
	}
	_, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": "many"})
	require.ErrorContains(t, err, "Shards")
	_, err = config.FromMap(map[string]string{"AFTERWRITE_SHARDS": "0", "AFTERWRITE_FLUSH_BATCH": "0"})
	require.ErrorContains(t, err, "SHARDS")
	require.ErrorContains(t, err, "FLUSH_BATCH", "both at once")
}

func TestTheAdminTokenIsCheckedAndNotShown(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"short", "fifteen-letters", "sixteen letters and a space", "tab\tin-the-middle-of-it", "sechzehn-Zeichen-ü", " "} {
		_, err := config.FromMap(map[string]string{"AFTERWRITE_ADMIN_TOKEN": bad})
		require.ErrorContains(t, err, "AFTERWRITE_ADMIN_TOKEN has ")
		require.NotContains(t, err.Error(), bad+"\"")
		require.NotContains(t, err.Error(), "fifteen")
		require.NotContains(t, err.Error(), "sixteen")
	}
	for _, good := range []string{"", "sixteen-letters-", "Q1w2/+=._~!@#$%^&*()"} {
		c, err := config.FromMap(map[string]string{"AFTERWRITE_ADMIN_TOKEN": good})
		require.NoError(t, err)
		require.Equal(t, good, c.AdminToken)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	require.Equal(t, "redis://u:xxxxx@h:1/0", config.Redact("redis://u:secret@h:1/0"))
	require.NotContains(t, config.Redact("host=h password=secret"), "secret")
	require.NotContains(t, config.Redact("redis://u:sec ret@h:%zz"), "sec")
}
