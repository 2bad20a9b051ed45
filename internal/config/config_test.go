package config_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
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

func TestShardsSetReportsWhetherTheVariableIsSet(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": false, "16": true, "64": true} {
		c, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": value})
		require.NoError(t, err)
		require.Equal(t, want, c.ShardsSet, value)
	}
}

func TestPortOverridesTheAddress(t *testing.T) {
	t.Parallel()
	c, err := config.FromMap(map[string]string{"PORT": "5000"})
	require.NoError(t, err)
	require.Equal(t, "0.0.0.0:5000", c.Addr(c.APIAddr))
}

func TestErrorNamesEveryBadVariable(t *testing.T) {
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
	_, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": "0", "AFTERWRITE_FLUSH_BATCH": "0"})
	require.ErrorContains(t, err, "SHARDS")
	require.ErrorContains(t, err, "FLUSH_BATCH", "both at once")
}

func TestErrorShowsAllowedValuesAndAnExample(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"AFTERWRITE_FLUSH_INTERVAL=abc":     `AFTERWRITE_FLUSH_INTERVAL must be a duration of 1s to 1h, such as 1s; it is "abc"`,
		"AFTERWRITE_FLUSH_INTERVAL=2":       `AFTERWRITE_FLUSH_INTERVAL must be a duration of 1s to 1h, such as 1s; it is "2"`,
		"AFTERWRITE_FLUSH_INTERVAL=10ms":    `AFTERWRITE_FLUSH_INTERVAL must be a duration of 1s to 1h, such as 1s; it is "10ms"`,
		"AFTERWRITE_SHUTDOWN_DELAY=1h":      `AFTERWRITE_SHUTDOWN_DELAY must be a duration of 0s to 1m, such as 5s; it is "1h"`,
		"AFTERWRITE_SHARDS=many":            `AFTERWRITE_SHARDS must be a whole number of 1 to 4096, such as 16; it is "many"`,
		"PORT=http":                         `PORT must be a whole number of 0 to 65535, such as 8080; it is "http"`,
		"AFTERWRITE_PPROF=on":               `AFTERWRITE_PPROF must be true or false, such as false; it is "on"`,
		"AFTERWRITE_LOG_LEVEL=loud":         `AFTERWRITE_LOG_LEVEL must be one of debug|info|warn|error, such as info; it is "loud"`,
		"AFTERWRITE_API_ADDR=8080":          `AFTERWRITE_API_ADDR must be host:port, such as 127.0.0.1:8080; it is "8080"`,
		"AFTERWRITE_SCHEMA=pg_temp":         `AFTERWRITE_SCHEMA must be a name of a-z, 0-9 and _, such as afterwrite; it is "pg_temp"`,
		"AFTERWRITE_SCHEMA=a.b":             `AFTERWRITE_SCHEMA must be a name of a-z, 0-9 and _, such as afterwrite; it is "a.b"`,
		"AFTERWRITE_SCHEMA=1a":              `AFTERWRITE_SCHEMA must be a name of a-z, 0-9 and _, such as afterwrite; it is "1a"`,
		"AFTERWRITE_NAMESPACE=My Shop":      `AFTERWRITE_NAMESPACE must be 1 to 32 characters of a-z, 0-9 and -, such as shop; it is "My Shop"`,
		"AFTERWRITE_NAMESPACE={a}":          `AFTERWRITE_NAMESPACE must be 1 to 32 characters of a-z, 0-9 and -, such as shop; it is "{a}"`,
		"AFTERWRITE_NAMESPACE=" + long("a"): `AFTERWRITE_NAMESPACE must be 1 to 32 characters of a-z, 0-9 and -, such as shop; it is "` + long("a") + `"`,
	} {
		name, value, _ := strings.Cut(given, "=")
		_, err := config.FromMap(map[string]string{name: value})
		require.EqualError(t, err, want)
	}
	_, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": "many", "AFTERWRITE_PPROF": "on"})
	require.ErrorContains(t, err, "AFTERWRITE_SHARDS must be")
	require.ErrorContains(t, err, "AFTERWRITE_PPROF must be", "both at once")
}

// long returns a name that is one character too long.
func long(text string) string { return strings.Repeat(text, 33) }

func TestEveryVariableIsDescribedAndAllowsItsBounds(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	for _, v := range config.Variables() {
		require.NotEmpty(t, v.Help, v.Name)
		require.False(t, names[v.Name], "%s is described twice", v.Name)
		names[v.Name] = true
		for _, bound := range numbers.FindStringSubmatch(v.Allowed) {
			if !strings.Contains(bound, " ") {
				_, err := config.FromMap(map[string]string{v.Name: bound})
				require.NoError(t, err, "bounds are inclusive")
			}
		}
	}
	require.Contains(t, names, "AFTERWRITE_SHARDS")
	for i, shards := range []int{counter.MaxShards, counter.MaxShards + 1} {
		_, err := config.FromMap(map[string]string{"AFTERWRITE_SHARDS": strconv.Itoa(shards)})
		require.Equal(t, i == 1, err != nil, "%v", err)
	}
}

// numbers matches the bounds of numbers and durations.
var numbers = regexp.MustCompile(`^(\d\S*) to (\d\S*)$`)

func TestPrefixIsTheNamespace(t *testing.T) {
	t.Parallel()
	for namespace, prefix := range map[string]string{"": "", "shop": "shop:", "a-1": "a-1:"} {
		c, err := config.FromMap(map[string]string{"AFTERWRITE_NAMESPACE": namespace})
		require.NoError(t, err)
		require.Equal(t, prefix, c.Prefix())
	}
}

func TestUnknownReturnsTheNearestKnownName(t *testing.T) {
	t.Parallel()
	require.Equal(t, []config.Mistyped{
		{Name: "AFTERWRITE_API_PORT", Nearest: "AFTERWRITE_API_ADDR"},
		{Name: "AFTERWRITE_FLUSHINTERVAL", Nearest: "AFTERWRITE_FLUSH_INTERVAL"},
		{Name: "AFTERWRITE_LOGLEVEL", Nearest: "AFTERWRITE_LOG_LEVEL"},
		{Name: "AFTERWRITE_SHARD", Nearest: "AFTERWRITE_SHARDS"},
	}, config.Unknown(map[string]string{
		"AFTERWRITE_SHARD": "1", "AFTERWRITE_FLUSHINTERVAL": "", "AFTERWRITE_LOGLEVEL": "debug", "AFTERWRITE_API_PORT": "8080",
		"AFTERWRITE_SHARDS": "1", "AFTERWRITE_REDIS_SERVER": "x", "AFTERWRITE_POSTGRES_BIN": "x", "REDIS_URI": "x", "PATH": "x",
	}))
	require.Empty(t, config.Unknown(map[string]string{ // as Kubernetes sets them for a service afterwrite-api
		"AFTERWRITE_API_SERVICE_HOST": "10.0.0.1", "AFTERWRITE_API_SERVICE_PORT": "8080", "AFTERWRITE_API_SERVICE_PORT_HTTP": "8080",
		"AFTERWRITE_API_PORT": "tcp://10.0.0.1:8080", "AFTERWRITE_API_PORT_8080_TCP": "tcp://10.0.0.1:8080",
		"AFTERWRITE_API_PORT_8080_TCP_PROTO": "tcp", "AFTERWRITE_API_PORT_8080_TCP_ADDR": "10.0.0.1",
	}))
}

func TestErrorDoesNotShowTheAdminToken(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"short", "fifteen-letters", "sixteen letters and a space", "tab\tin-the-middle-of-it", "sechzehn-Zeichen-ü", " "} {
		_, err := config.FromMap(map[string]string{"AFTERWRITE_ADMIN_TOKEN": bad})
		require.ErrorContains(t, err, "AFTERWRITE_ADMIN_TOKEN must have ")
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

func TestSettingsThatBelongTogether(t *testing.T) {
	t.Parallel()
	for _, bad := range []struct{ first, second, want string }{
		{"AFTERWRITE_TLS_CERT", "AFTERWRITE_LOG_LEVEL", "set both or none"},
		{"AFTERWRITE_TLS_KEY", "AFTERWRITE_LOG_LEVEL", "set both or none"},
		{"AFTERWRITE_REDIS_CERT", "AFTERWRITE_LOG_LEVEL", "set both or none"},
		{"AFTERWRITE_REDIS_KEY", "AFTERWRITE_LOG_LEVEL", "set both or none"},
		{"AFTERWRITE_API_KEYS", "AFTERWRITE_API_KEYS_FILE", "set one of them"},
	} {
		_, err := config.FromMap(map[string]string{bad.first: "info", bad.second: "info"})
		require.ErrorContains(t, err, bad.want)
		require.NotContains(t, err.Error(), "info")
	}
	_, err := config.FromMap(map[string]string{"AFTERWRITE_TLS_CERT": "a", "AFTERWRITE_TLS_KEY": "b"})
	require.NoError(t, err)
}

func TestOriginsAreOriginsOnly(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"", "*", "https://app.example", "https://a.example, http://localhost:3000,app://b"} {
		c, err := config.FromMap(map[string]string{"AFTERWRITE_CORS_ORIGINS": good})
		require.NoError(t, err, good)
		require.Equal(t, good, c.CORSOrigins)
	}
	for _, bad := range []string{
		"app.example", "https://app.example/", "https://*.app.example", "https://app.example,*", "https://", "null", "https://App.example",
		"https://u@app.example", "https://app.example?x",
	} {
		_, err := config.FromMap(map[string]string{"AFTERWRITE_CORS_ORIGINS": bad})
		require.ErrorContains(t, err, "AFTERWRITE_CORS_ORIGINS must be * or origins, such as https://app.example.com", bad)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	require.Equal(t, "redis://u:xxxxx@h:1/0", config.Redact("redis://u:secret@h:1/0"))
	require.NotContains(t, config.Redact("host=h password=secret"), "secret")
	require.NotContains(t, config.Redact("redis://u:sec ret@h:%zz"), "sec")
}
