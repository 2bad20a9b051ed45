package command

import (
	"bytes"
	"context"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/process"
)

// result is what a command that ran in this process did.
type result struct {
	status         int
	stdout, stderr string
}

// runHere runs a command that does not change anything of the whole process.
func runHere(ctx context.Context, args ...string) result {
	var stdout, stderr bytes.Buffer
	status := run(world{ctx: ctx, stdout: &stdout, stderr: &stderr}, args)
	return result{status: status, stdout: stdout.String(), stderr: stderr.String()}
}

var commands = []string{"up", "api", "worker", "scheduler", "dashboard", "migrate", "doctor", "status", "flush", "dead", "history", "mappings", "api-key", "healthcheck", "version"}

func TestHelpNamesEveryCommand(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"--help"}} {
		r := runHere(t.Context(), args...)
		require.Equal(t, exitOK, r.status)
		require.Empty(t, r.stderr)
		for _, name := range commands {
			require.Contains(t, r.stdout, "\n  "+name+" ")
		}
	}
}

func TestTheHelpOfEachCommandTeaches(t *testing.T) {
	t.Parallel()
	for _, name := range commands {
		r := runHere(t.Context(), name, "--help")
		require.Equal(t, exitOK, r.status, name)
		if name == "version" {
			continue
		}
		require.Contains(t, r.stdout, "Example:\n\n    ", name)
		if name != "healthcheck" && name != "api-key" {
			require.Contains(t, r.stdout, "Environment:\n\n    ", name)
			require.Contains(t, r.stdout, "AFTERWRITE_LOG_LEVEL", name)
		}
	}
	require.Contains(t, runHere(t.Context(), "worker", "--help").stdout,
		"    AFTERWRITE_FLUSH_BATCH [1000]\n        the most rows in one statement\n")
}

func TestArgumentsThatMakeNoSenseAreAUsageError(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"bogus"}, {"api", "extra"}, {"migrate", "--force"}, {"healthcheck"}} {
		r := runHere(t.Context(), args...)
		require.Equal(t, exitUsage, r.status, "%v", args)
		require.Regexp(t, "^afterwrite: .*: see `afterwrite --help`\n$", r.stderr)
		require.Empty(t, r.stdout)
	}
}

func TestVersionIsPrinted(t *testing.T) {
	t.Parallel()
	r := runHere(t.Context(), "version")
	require.Equal(t, exitOK, r.status)
	require.Regexp(t, `^afterwrite \S+, .*go\d\S+\n$`, r.stdout)
}

func TestVersionHasTheCommitAndItsDateInUTC(t *testing.T) {
	t.Parallel()
	line := versionLine(&debug.BuildInfo{Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "fc47270c1d2e3f405162738495a6b7c8d9e0f102"}, {Key: "vcs.time", Value: "2026-11-28T21:54:11+01:00"},
	}}, true)
	require.Contains(t, line, ", commit fc47270c1d2e, 2026-11-28T20:54:11Z, go")
}

func TestSomeCommandsHelpListsEachVariable(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, name := range commands {
		all.WriteString(runHere(t.Context(), name, "--help").stdout)
	}
	for _, v := range config.Variables() {
		require.Contains(t, all.String(), "    "+v.Name, "no command's help lists it")
	}
}

func TestMistypedVariablesAreWarnedAbout(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"doctor"}, {"worker"}} {
		text := start(t, []string{"AFTERWRITE_FLUSH_INTERVALL=5s", "AFTERWRITE_SHARDS=4"}, args...).oneLine(t)
		require.Equal(t, 1, strings.Count(text, "level=WARN"), text)
		require.Contains(t, text, "variable=AFTERWRITE_FLUSH_INTERVALL nearest=AFTERWRITE_FLUSH_INTERVAL")
		require.Contains(t, text, "REDIS_URL is not set")
	}
}

func TestEnvironMapTakesTheFirstOfEachName(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string]string{"A": "1=2", "B": "", "C": ""}, environMap([]string{"A=1=2", "B=", "A=3", "C"}))
}

func TestPlansListenWhereTheEnvironmentSays(t *testing.T) {
	t.Parallel()
	c, err := config.FromMap(map[string]string{
		"AFTERWRITE_API_ADDR": "h:1", "AFTERWRITE_WORKER_ADDR": "h:2", "AFTERWRITE_SCHEDULER_ADDR": "h:3", "AFTERWRITE_DASHBOARD_ADDR": "h:4",
	})
	require.NoError(t, err)
	for i, p := range []process.Plan{apiPlan, workerPlan, schedulerPlan, dashboardPlan} {
		require.Equal(t, "h:"+string(rune('1'+i)), p.Addr(c))
		require.Equal(t, "AFTERWRITE_"+strings.ToUpper(p.Name)+"_ADDR", p.Variable)
	}
}
