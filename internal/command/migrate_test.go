package command

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/process"
)

func TestMigrateShowsAndAppliesWhatIsPending(t *testing.T) {
	t.Parallel()
	// Half an hour off, so that a time in the session's zone cannot be taken for UTC.
	env := []string{"DATABASE_URL=" + localtest.PostgresURL(t, nil) + "&timezone=Asia/Kolkata"}
	said := func(args ...string) string {
		p := start(t, env, args...)
		require.Equal(t, exitOK, p.end(t), p.out.String())
		return p.out.String()
	}

	require.Equal(t, "00001_counters.sql  pending\n00002_lineage.sql  pending\n00003_actions.sql  pending\n"+
		"00004_operations.sql  pending\n00005_operations_parts.sql  pending\n5 of 5 migrations are pending: run `afterwrite migrate`\n"+
		"redis: not looked at, since REDIS_URL is not set\n", said("migrate", "--status"))
	require.Contains(t, said("migrate"), "applied 00001_counters.sql")
	require.Regexp(t, "^the schema is up to date\nredis: not looked at, since REDIS_URL is not set; [^\n]+\n$", said("migrate"))
	status := said("migrate", "--status")
	require.Regexp(t, `^(\d{5}_\w+.sql  applied \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n){5}the schema is up to date\nredis: not looked at.*\n$`,
		status)
	_, text, _ := strings.Cut(strings.SplitN(status, "\n", 2)[0], "applied ")
	at, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute, "in UTC, whatever the zone of the server")
}

func TestMigrateCreatesTheIndexForTopIfItIsEnabled(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=" + localtest.PostgresURL(t, nil)}
	migrate := func(settings ...string) string {
		p := start(t, append(settings, env...), "migrate")
		require.Equal(t, exitOK, p.end(t), p.out.String())
		return p.out.String()
	}
	require.NotContains(t, migrate(), "index")
	require.Contains(t, migrate("AFTERWRITE_TOP=true"), "created the index counters_value_idx for /v1/top\n")
	require.NotContains(t, migrate("AFTERWRITE_TOP=true"), "index")
	require.Contains(t, migrate(), `run DROP INDEX CONCURRENTLY "afterwrite".counters_value_idx`+"\n")
}

func TestMigrateSaysInOneLineThatPostgresIsAway(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"migrate"}, {"migrate", "--status"}} {
		line := start(t, []string{noPostgres}, args...).oneLine(t)
		require.Contains(t, line, "connection refused")
		require.NotContains(t, line, "hunter2")
	}
}

func TestDoctorPrintsATableAndSucceedsWhenNothingIsRefused(t *testing.T) {
	t.Parallel()
	p := start(t, servers(t), "doctor")

	require.Equal(t, exitOK, p.end(t), p.out.String())
	require.Regexp(t, `(?m)^STATUS +CHECK +FOUND$`, p.out.String())
	require.Regexp(t, `(?m)^ok +postgres schema +up to date$`, p.out.String())
	require.Regexp(t, `(?m)^warning +redis persistence +AOF is OFF`, p.out.String())
}

func TestDoctorFailsWhenSomethingIsRefused(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, Args: []string{"--maxmemory-policy", "allkeys-lru"}})
	env := []string{"REDIS_URL=" + server.URL(), "DATABASE_URL=" + localtest.PostgresURL(t, nil)}
	p := start(t, env, "doctor", "--json")

	require.Equal(t, exitFailure, p.end(t))
	var findings []process.Finding
	require.NoError(t, json.Unmarshal([]byte(p.text.String()), &findings), p.out.String())
	fixes := make(map[string]string)
	for _, f := range findings {
		if f.Status == process.Refused {
			fixes[f.Name] = f.Fix
		}
	}
	require.Equal(t, map[string]string{
		"redis memory policy": "redis-cli CONFIG SET maxmemory-policy noeviction",
		"postgres schema":     "run `afterwrite migrate`",
	}, fixes)
}

func TestJSONIsIndentedAndKeepsItsBrackets(t *testing.T) {
	t.Parallel()
	var out strings.Builder

	require.NoError(t, printJSON(&out, []process.Finding{{Name: "redis", Fix: "CONFIG SET <that>"}}))

	require.Contains(t, out.String(), "\n    \"fix\": \"CONFIG SET <that>\"\n")
}
