package command

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

var processes = []string{"api", "worker", "scheduler", "dashboard"}

// deployed is a file below the module's root.
func deployed(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", path))
	require.NoError(t, err)
	return text
}

// promtool finds the program where deploy/setup.sh looks for it.
func promtool(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	path, err := filepath.Abs(filepath.Join("..", "..", ".bin", "promtool"))
	require.NoError(t, err)
	require.FileExists(t, path, "make promtool")
	return path
}

// rules are the alerts of deploy/prometheus/alerts.yml.
type rules struct {
	Groups []struct {
		Rules []rule `yaml:"rules"`
	} `yaml:"groups"`
}

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	Annotations map[string]string `yaml:"annotations"`
}

func alerts(t *testing.T) []rule {
	t.Helper()
	var r rules
	require.NoError(t, yaml.Unmarshal(deployed(t, "deploy/prometheus/alerts.yml"), &r))
	require.Len(t, r.Groups, 1)
	require.NotEmpty(t, r.Groups[0].Rules)
	return r.Groups[0].Rules
}

// grafana is what is looked at of a dashboard.
type grafana struct {
	Title  string `json:"title"`
	Panels []struct {
		ID      int    `json:"id"`
		Type    string `json:"type"`
		Title   string `json:"title"`
		GridPos struct {
			H int `json:"h"`
			W int `json:"w"`
			X int `json:"x"`
			Y int `json:"y"`
		} `json:"gridPos"` //nolint:tagliatelle // it is Grafana's
		Targets []struct {
			Expr string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

func dashboardFile(t *testing.T) grafana {
	t.Helper()
	var d grafana
	require.NoError(t, json.Unmarshal(deployed(t, "deploy/grafana/afterwrite.json"), &d))
	return d
}

// scraped runs every process until it has handed out its metrics, and returns them, by process.
func scraped(t *testing.T) map[string]string {
	t.Helper()
	env := append(servers(t), mappingsVariable(t, testMappings))
	executeIn(t, env, createPosts+"; "+createDays)
	pages := make(map[string]string, len(processes))
	running := make([]*running, 0, len(processes))
	for _, name := range processes {
		running = append(running, start(t, env, name))
	}
	for i, name := range processes {
		url := running[i].url(t) + "/metrics"
		localtest.Eventually(t, patience, func() (bool, string) {
			_, pages[name] = get(t, url)
			// Asynq knows no queue before the scheduler's first tick.
			return name != "scheduler" || regexpQueues.MatchString(pages[name]), pages[name]
		})
	}
	for _, p := range running {
		p.stop(t)
	}
	return pages
}

func TestMonitoringPromtoolTakesTheMetricsOfEveryProcess(t *testing.T) {
	t.Parallel()
	program := promtool(t)
	pages := scraped(t)
	for _, name := range processes {
		check := exec.Command(program, "check", "metrics")
		check.Stdin = strings.NewReader(pages[name])
		said, err := check.CombinedOutput()
		require.NoError(t, err, "%s: %s", name, said)
		require.Contains(t, pages[name], `afterwrite_build_info{goversion="go`, name)
		require.Contains(t, pages[name], `process="`+name+`"`)
		for _, metric := range []string{"go_goroutines", "afterwrite_dirty_keys", "afterwrite_redis_memory_used_bytes"} {
			require.Contains(t, pages[name], "\n"+metric+" ", name)
		}
	}
}

// metricName finds metrics in PromQL. What Prometheus makes itself, up and scrape_..., is not looked for.
var metricName = regexp.MustCompile(`\b(?:afterwrite|asynq|go|process)_[a-z0-9_]+\b`)

// quoted is a string in PromQL.
var quoted = regexp.MustCompile(`"[^"]*"`)

func TestMonitoringAsksOnlyForMetricsThatAreThere(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for _, page := range scraped(t) {
		text.WriteString("\n" + page)
	}
	all := text.String()

	wanted := make(map[string]string)
	for _, r := range alerts(t) {
		for _, name := range metricName.FindAllString(quoted.ReplaceAllString(r.Expr, ""), -1) {
			wanted[name] = r.Alert
		}
	}
	for _, panel := range dashboardFile(t).Panels {
		for _, target := range panel.Targets {
			names := metricName.FindAllString(quoted.ReplaceAllString(target.Expr, ""), -1)
			require.NotEmpty(t, names, "%s: %s", panel.Title, target.Expr)
			for _, name := range names {
				wanted[name] = panel.Title
			}
		}
	}
	require.Greater(t, len(wanted), 30)
	for name, where := range wanted {
		require.Regexp(t, `(?m)^`+name+`[ {]`, all, "%s asks for it", where)
	}
}

func TestMonitoringEveryMetricOfOursHasAnAlertOrAPanel(t *testing.T) {
	t.Parallel()
	used := string(deployed(t, "deploy/prometheus/alerts.yml")) + string(deployed(t, "deploy/grafana/afterwrite.json"))
	for name, page := range scraped(t) {
		for _, line := range regexp.MustCompile(`(?m)^# TYPE (afterwrite_\S+) `).FindAllStringSubmatch(page, -1) {
			require.Contains(t, used, line[1], "of the "+name)
		}
	}
}

// heading is a section of the runbook.
var heading = regexp.MustCompile(`(?m)^## (.+)$`)

func TestMonitoringEveryAlertLeadsToItsSectionOfTheRunbook(t *testing.T) {
	t.Parallel()
	const runbook = "https://github.com/afterwrite/afterwrite/blob/main/docs/runbook.md#"
	var sections []string
	for _, found := range heading.FindAllStringSubmatch(string(deployed(t, "docs/runbook.md")), -1) {
		sections = append(sections, found[1])
	}
	tests := string(deployed(t, "deploy/prometheus/alerts_test.yml"))
	names := make([]string, 0, len(sections))
	for _, r := range alerts(t) {
		require.Equal(t, runbook+strings.ToLower(r.Alert), r.Annotations["runbook_url"])
		require.Contains(t, sections, r.Alert)
		require.NotEmpty(t, r.Annotations["summary"])
		require.Contains(t, tests, "name: "+r.Alert+" fires\n")
		require.Contains(t, tests, "name: "+r.Alert+" is silent\n")
		names = append(names, r.Alert)
	}
	// An alert of several rules has one section: its rules follow one another.
	require.ElementsMatch(t, slices.Compact(names), sections, "a section without an alert")
}

func TestMonitoringTheDashboardHasARowForEachQuestion(t *testing.T) {
	t.Parallel()
	d := dashboardFile(t)
	require.Equal(t, "afterwrite", d.Title)
	var rows []string
	ids := make(map[int]bool)
	for i, panel := range d.Panels {
		require.False(t, ids[panel.ID], panel.Title)
		ids[panel.ID] = true
		if panel.Type == "row" {
			rows = append(rows, panel.Title)
			continue
		}
		require.NotEmpty(t, panel.Targets, panel.Title)
		require.LessOrEqual(t, panel.GridPos.X+panel.GridPos.W, 24, panel.Title)
		for _, other := range d.Panels[i+1:] {
			a, b := panel.GridPos, other.GridPos
			require.False(t, a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H,
				"%s and %s overlap", panel.Title, other.Title)
		}
	}
	require.Equal(t, []string{"Is it keeping up?", "How far behind is Postgres?", "What is stuck?", "Resources"}, rows)
}

func TestMonitoringThePanelOfTheLimitSaysWhatItsAlertSays(t *testing.T) {
	t.Parallel()
	shown := ""
	for _, panel := range dashboardFile(t).Panels {
		if panel.Title == "Of the limit" {
			shown = panel.Targets[0].Expr
		}
	}
	require.NotEmpty(t, shown)
	for _, r := range alerts(t) {
		if r.Alert == "AfterwriteBacklogNearLimit" {
			require.Equal(t, shown+" > 0.8", r.Expr)
		}
	}
}

func TestMonitoringNoLabelHoldsAKey(t *testing.T) {
	t.Parallel()
	allowed := []string{
		"op", "reason", "le", "outcome", "queue", "state", "process", "version", "goversion", "quantile", "code", "cause", "mapping", "command",
	}
	for name, page := range scraped(t) {
		for _, labels := range regexp.MustCompile(`(?m)^[a-z_]+\{([^}]*)\}`).FindAllStringSubmatch(page, -1) {
			for _, label := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(labels[1], -1) {
				ofAPIKey := strings.HasPrefix(labels[0], "afterwrite_api_requests_total{key=") // its name, from the settings
				require.True(t, ofAPIKey || slices.Contains(allowed, label[1]), "%s: %s", name, labels[0])
			}
		}
	}
}
