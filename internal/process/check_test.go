package process

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

var sampleFindings = []Finding{
	{Name: "redis", Status: OK, Detail: "version 7.0.15"},
	{Name: "redis memory policy", Status: Refused, Detail: "allkeys-lru", Fix: "redis-cli CONFIG SET <that>"},
}

func TestPrintIsAnAlignedTable(t *testing.T) {
	t.Parallel()
	var out strings.Builder

	require.NoError(t, Print(&out, sampleFindings))

	require.Equal(t, strings.Join([]string{
		"STATUS   CHECK                FOUND",
		"ok       redis                version 7.0.15",
		"refused  redis memory policy  allkeys-lru",
		"                              -> redis-cli CONFIG SET <that>",
		"",
	}, "\n"), out.String())
}

func TestWorstReturnsTheWorstStatus(t *testing.T) {
	t.Parallel()
	of := func(all ...Status) Status {
		var findings []Finding
		for _, s := range all {
			findings = append(findings, Finding{Status: s})
		}
		return Worst(findings)
	}

	require.Equal(t, OK, of())
	require.Equal(t, Warning, of(OK, Warning, OK))
	require.Equal(t, Refused, of(Warning, Refused, OK, Warning))
}

func TestClockSkewAboveASecondIsAWarning(t *testing.T) {
	t.Parallel()
	before := time.Unix(1000, 0)
	for _, test := range []struct {
		skew, roundTrip time.Duration
		want            Status
		detail          string
	}{
		{0, 0, OK, "0s ahead"},
		{900 * time.Millisecond, 10 * time.Millisecond, OK, "900ms ahead"},
		{2 * time.Second, 10 * time.Millisecond, Warning, "2s ahead"},
		{-2 * time.Second, 10 * time.Millisecond, Warning, "2s behind"},
		// The answer took too long for a comparison.
		{1500 * time.Millisecond, 2 * time.Second, OK, "±1s"},
		{-time.Hour, 2 * time.Second, Warning, "1h0m0s behind"},
	} {
		there := before.Add(test.roundTrip / 2).Add(test.skew)

		f := checkClock("redis clock", before, there, before.Add(test.roundTrip))

		require.Equal(t, test.want, f.Status, "%+v", test)
		require.Contains(t, f.Detail, test.detail)
		require.Equal(t, test.want == Warning, f.Fix != "")
	}
}

func TestProcessStartsWithWarningsAndLogsThem(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	options := withShards(localtest.Redis(t), 64) // AOF is off in the tests' Redis
	options.Postgres = openStore(t, "postgres://me@127.0.0.1:1/x")

	require.NoError(t, options.atStart(t.Context(), slog.New(slog.NewTextHandler(&log, nil))))

	require.Contains(t, log.String(), "AOF is OFF")
	require.Contains(t, log.String(), "start it, or correct DATABASE_URL")
}

func TestProcessDoesNotStartIfRedisMayEvictCounters(t *testing.T) {
	t.Parallel()
	options := withShards(ownRedis(t, "--maxmemory-policy", "allkeys-lru"), 64)

	err := options.atStart(t.Context(), slog.New(slog.DiscardHandler))

	require.ErrorContains(t, err, "refusing to start: redis memory policy: allkeys-lru")
	require.ErrorContains(t, err, "redis-cli CONFIG SET maxmemory-policy noeviction")
	require.NotContains(t, err.Error(), "\n")
}

func TestFirstProcessStoresTheSettingsInANewRedis(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	quiet := slog.New(slog.DiscardHandler)

	require.NoError(t, withShards(client, 64).atStart(t.Context(), quiet))
	err := withShards(client, 32).atStart(t.Context(), quiet)

	require.ErrorContains(t, err, "set AFTERWRITE_SHARDS to 64")
}
