package report_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/bench/report"
)

func line(subject, peer []float64, goal report.Goal) report.Line {
	return report.Line{
		ID: "x", What: "writes", Goal: goal,
		Subject: report.Side{Name: "afterwrite", Unit: report.PerSecond, Rounds: subject},
		Peer:    report.Side{Name: "direct", Unit: report.PerSecond, Rounds: peer},
	}
}

func TestMedianOfOddAndEvenNumbersOfValues(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 2, report.Median([]float64{9, 1, 2}), 0)
	require.InDelta(t, 3, report.Median([]float64{9, 1, 2, 4}), 0)
	require.Zero(t, report.Median(nil))
}

func TestMedianDoesNotSortItsArgument(t *testing.T) {
	t.Parallel()
	rounds := []float64{3, 1, 2}
	report.Median(rounds)
	require.Equal(t, []float64{3, 1, 2}, rounds)
}

// In the second round the machine was half as fast for both sides, which must not change the ratio.
func TestRatioIsComparedWithinARound(t *testing.T) {
	t.Parallel()
	f, err := line([]float64{100, 50, 120}, []float64{20, 10, 20}, report.Goal{AtLeast: 5}).Figure()

	require.NoError(t, err)
	require.Equal(t, report.Figure{Subject: 100, Peer: 20, Ratio: 5, Min: 5, Max: 6, Verdict: report.Meets}, f)
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		goal report.Goal
		want report.Verdict
	}{
		"at the lower bound":         {report.Goal{AtLeast: 4}, report.Meets},
		"below the lower bound":      {report.Goal{AtLeast: 4.01}, report.Misses},
		"at the upper bound":         {report.Goal{AtMost: 4}, report.Meets},
		"above the upper bound":      {report.Goal{AtMost: 3.99}, report.Misses},
		"goal for the figure itself": {report.Goal{AtMost: 39, Absolute: true}, report.Misses},
		"no goal":                    {report.Goal{}, report.Printed},
	} {
		f, err := line([]float64{40}, []float64{10}, test.goal).Figure()
		require.NoError(t, err, name)
		require.Equal(t, test.want, f.Verdict, name)
	}
}

func TestLineWithUnequalOrMissingRoundsIsAnError(t *testing.T) {
	t.Parallel()
	for _, l := range []report.Line{
		line(nil, nil, report.Goal{}),
		line([]float64{1, 2}, []float64{1}, report.Goal{}),
		line([]float64{1}, []float64{0}, report.Goal{}),
	} {
		_, err := l.Figure()
		require.Error(t, err)
		_, err = report.Table([]report.Line{l})
		require.Error(t, err)
	}
}

func TestTableShowsMediansAndMissedGoals(t *testing.T) {
	t.Parallel()
	alone := line([]float64{2.5}, nil, report.Goal{AtMost: 3})
	alone.Peer, alone.Subject.Unit = report.Side{}, report.Millis

	table, err := report.Table([]report.Line{
		line([]float64{51234, 60000, 50000}, []float64{10000, 10000, 10000}, report.Goal{AtLeast: 5.5}), alone,
	})

	require.NoError(t, err)
	require.Contains(t, table, "| writes | 51,234/s | 10,000/s (direct) | 5.12 x | 5.00 to 6.00 | ≥ 5.5 x | **misses** |")
	require.Contains(t, table, "| writes | 2.50 ms |  |  | one run | ≤ 3 ms | meets |")
}

func TestTableHidesFiguresOfABrokenRun(t *testing.T) {
	t.Parallel()
	l := line([]float64{51234}, []float64{10000}, report.Goal{AtLeast: 5})
	l.Problem = "100 acknowledged, but 99 stored"

	table, err := report.Table([]report.Line{l})

	require.NoError(t, err)
	require.NotContains(t, table, "51,234")
	require.Contains(t, table, "failed**: 100 acknowledged, but 99 stored")
}

func TestCheckRefusesWrongSums(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		count report.Count
		fine  bool
	}{
		"exact":                        {report.Count{Stored: 100, Acknowledged: 100, Load: 100, Cut: 5}, true},
		"answers cut off":              {report.Count{Stored: 105, Acknowledged: 105, Load: 100, Cut: 5}, true},
		"more than Cut stored":         {report.Count{Stored: 106, Acknowledged: 106, Load: 100, Cut: 5}, false},
		"one write lost":               {report.Count{Stored: 104, Acknowledged: 105, Load: 100, Cut: 5}, false},
		"unknown outcomes applied":     {report.Count{Stored: 103, Acknowledged: 100, Unknown: 4, Load: 100, Cut: 5}, true},
		"more applied than unknown":    {report.Count{Stored: 105, Acknowledged: 100, Unknown: 4, Load: 100, Cut: 5}, false},
		"more unknown than cut off":    {report.Count{Stored: 100, Acknowledged: 100, Unknown: 6, Load: 100, Cut: 5}, false},
		"one write counted twice":      {report.Count{Stored: 106, Acknowledged: 105, Load: 105, Cut: 5}, false},
		"answered, but not stored":     {report.Count{Stored: 99, Acknowledged: -1, Load: 100, Cut: 5}, false},
		"a server that does not count": {report.Count{Stored: 103, Acknowledged: -1, Load: 100, Cut: 5}, true},
		"all zero":                     {report.Count{}, false},
	} {
		if err := test.count.Check(); test.fine {
			require.NoError(t, err, name)
		} else {
			require.Error(t, err, name)
		}
	}
}

func TestRewriteFileChangesOnlyTheTextBetweenTheMarks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "performance.md")
	require.NoError(t, os.WriteFile(path, []byte("# a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n"), 0o640))

	require.NoError(t, report.RewriteFile(path, "new\n"))
	require.NoError(t, report.RewriteFile(path, "newer\n"))

	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "# a\n<!-- bench:begin -->\nnewer\n<!-- bench:end -->\nb\n", string(text))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
}

func TestRewriteFileRequiresEachMarkOnce(t *testing.T) {
	t.Parallel()
	for _, document := range []string{
		"", "<!-- bench:begin -->", "<!-- bench:end --> <!-- bench:begin -->",
		"<!-- bench:begin --> <!-- bench:begin --> <!-- bench:end -->", "<!-- bench:begin --><!-- bench:end --><!-- bench:end -->",
	} {
		path := filepath.Join(t.TempDir(), "performance.md")
		require.NoError(t, os.WriteFile(path, []byte(document), 0o600))
		require.Error(t, report.RewriteFile(path, "x"), document)
	}
}
