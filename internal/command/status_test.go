package command

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// status runs the command with --json, and returns the report and the exit status.
func status(t *testing.T, env []string, args ...string) (statusReport, int) {
	t.Helper()
	p := start(t, env, append([]string{"status", "--json"}, args...)...)
	code := p.end(t)
	var report statusReport
	require.NoError(t, json.Unmarshal([]byte(p.text.String()), &report), p.out.String())
	return report, code
}

func TestStatusSaysThatPostgresKeepsUpUntilItDoesNot(t *testing.T) {
	t.Parallel()
	env := servers(t)
	worker, api := start(t, env, "worker"), start(t, env, "api")
	url := api.url(t)
	worker.url(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		response, err := http.Post(url+"/v1/counters/a/increment", "application/json", strings.NewReader(`{}`))
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		report, code := status(t, env, "--for", "2s")
		return code == exitOK && *report.Rates.Writes > 0, report.Findings[0].Sentence
	})
	report, code := status(t, env)
	require.Equal(t, exitOK, code)
	require.Equal(t, health.KeepsUp, report.KeepingUp)
	require.WithinDuration(t, time.Now(), report.At, time.Minute)
	require.Zero(t, report.Backlog.Dead)
	require.Len(t, report.Processes, 2)
	require.Equal(t, health.RoleWorker, report.Processes[1].Role)
	require.Equal(t, health.PostgresUp, report.Processes[1].Postgres)
	require.True(t, report.Processes[1].Alive)
	p := start(t, env, "status", "--for", "0s")
	require.Equal(t, exitOK, p.end(t), p.out.String())
	require.Regexp(t, `(?m)^Keeping up: `, p.text.String())
	require.Regexp(t, `(?m)^Processes +api 1, worker 1, scheduler 0, dashboard 0$`, p.text.String())
	require.Contains(t, p.text.String(), "\nwarn: No scheduler is running.\nKeys whose task was lost are found later")

	worker.stop(t)
	report, code = status(t, env, "--for", "0s")
	require.Equal(t, exitFailure, code)
	require.Equal(t, health.Behind, report.KeepingUp)
	require.Equal(t, "no_workers", report.Findings[0].Code)
	require.Equal(t, health.Bad, report.Findings[0].Level)
	require.Contains(t, report.Findings[0].Advice, "Start `afterwrite worker`")
	require.Contains(t, start(t, env, "status", "--for", "0s").oneLine(t), "postgres does not keep up")
}

func TestStatusSaysThatPostgresIsDown(t *testing.T) {
	t.Parallel()
	env := append([]string{"REDIS_URL=" + localtest.RedisURL(t), noPostgres}, anywhere...)
	start(t, env, "worker").url(t)
	localtest.Eventually(t, patience, func() (bool, string) {
		report, code := status(t, env, "--for", "0s")
		return code == exitFailure && report.Findings[0].Code == "postgres_down", report.Findings[0].Sentence
	})
}

func TestStatusThatCannotAskRedisDoesNotGuess(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{{"REDIS_URL=redis://127.0.0.1:1/0"}, {}} {
		p := start(t, env, "status")
		require.Equal(t, exitUnknown, p.end(t), p.out.String())
		require.Contains(t, p.errs.String(), "REDIS_URL")
		require.Empty(t, p.text.String())
	}
	require.Equal(t, exitUsage, runHere(t.Context(), "status", "--for=-1s").status)
}
