package report_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/bench/report"
)

func line(this, peer []float64, goal report.Goal) report.Line {
	return report.Line{
		ID: "x", What: "writes", Goal: goal,
		This: report.Side{Name: "afterwrite", Unit: report.PerSecond, Rounds: this},
		Peer: report.Side{Name: "direct", Unit: report.PerSecond, Rounds: peer},
	}
}

func TestMedianIsTheMiddle(t *testing.T) {
	t.Parallel()
	require.InDelta(t, 2, report.Median([]float64{9, 1, 2}), 0)
	require.InDelta(t, 3, report.Median([]float64{9, 1, 2, 4}), 0)
	require.Zero(t, report.Median(nil))
}

func TestMedianLeavesItsArgumentAsItIs(t *testing.T) {
	t.Parallel()
	rounds := []float64{3, 1, 2}
	report.Median(rounds)
	require.Equal(t, []float64{3, 1, 2}, rounds)
}

// The machine was half as fast in the second round, for both: that is no difference between them.
func TestRatiosAreMadeWithinARound(t *testing.T) {
	t.Parallel()
	f, err := line([]float64{100, 50, 120}, []float64{20, 10, 20}, report.Goal{AtLeast: 5}).Figure()

	require.NoError(t, err)
	require.Equal(t, report.Figure{This: 100, Peer: 20, Ratio: 5, Min: 5, Max: 6, Verdict: report.Meets}, f)
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		goal report.Goal
		want report.Verdict
	}{
		"just reached":         {report.Goal{AtLeast: 4}, report.Meets},
		"just under":           {report.Goal{AtLeast: 4.01}, report.Misses},
		"not too much":         {report.Goal{AtMost: 4}, report.Meets},
		"too much":             {report.Goal{AtMost: 3.99}, report.Misses},
		"about this side only": {report.Goal{AtMost: 39, OfThis: true}, report.Misses},
		"none":                 {report.Goal{}, report.Printed},
	} {
		f, err := line([]float64{40}, []float64{10}, test.goal).Figure()
		require.NoError(t, err, name)
		require.Equal(t, test.want, f.Verdict, name)
	}
}

func TestALineWithoutItsRoundsIsAnError(t *testing.T) {
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

func TestTableShowsMediansAndWhatMisses(t *testing.T) {
	t.Parallel()
	alone := line([]float64{2.5}, nil, report.Goal{AtMost: 3})
	alone.Peer, alone.This.Unit = report.Side{}, report.Millis

	table, err := report.Table([]report.Line{
		line([]float64{51234, 60000, 50000}, []float64{10000, 10000, 10000}, report.Goal{AtLeast: 5.5}), alone,
	})

	require.NoError(t, err)
	require.Contains(t, table, "| writes | 51,234/s | 10,000/s (direct) | 5.12 x | 5.00 to 6.00 | ≥ 5.5 x | **misses** |")
	require.Contains(t, table, "| writes | 2.50 ms |  |  | one run | ≤ 3 ms | meets |")
}

func TestNoFigureOfARunThatDoesNotAddUpIsShown(t *testing.T) {
	t.Parallel()
	l := line([]float64{51234}, []float64{10000}, report.Goal{AtLeast: 5})
	l.Problem = "100 acknowledged, but 99 stored"

	table, err := report.Table([]report.Line{l})

	require.NoError(t, err)
	require.NotContains(t, table, "51,234")
	require.Contains(t, table, "does not add up**: 100 acknowledged, but 99 stored")
}

func TestCheckRefusesARunWhoseSumIsOff(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		count report.Count
		fine  bool
	}{
		"exact":                         {report.Count{Stored: 100, Acknowledged: 100, Load: 100, Cut: 5}, true},
		"answers cut off":               {report.Count{Stored: 105, Acknowledged: 105, Load: 100, Cut: 5}, true},
		"more than can be cut off":      {report.Count{Stored: 106, Acknowledged: 106, Load: 100, Cut: 5}, false},
		"one lost":                      {report.Count{Stored: 104, Acknowledged: 105, Load: 100, Cut: 5}, false},
		"cut off, carried out":          {report.Count{Stored: 103, Acknowledged: 100, Unknown: 4, Load: 100, Cut: 5}, true},
		"more than were cut off":        {report.Count{Stored: 105, Acknowledged: 100, Unknown: 4, Load: 100, Cut: 5}, false},
		"unknown without being cut off": {report.Count{Stored: 100, Acknowledged: 100, Unknown: 6, Load: 100, Cut: 5}, false},
		"one counted twice":             {report.Count{Stored: 106, Acknowledged: 105, Load: 105, Cut: 5}, false},
		"answered, not stored":          {report.Count{Stored: 99, Acknowledged: -1, Load: 100, Cut: 5}, false},
		"a peer that does not count":    {report.Count{Stored: 103, Acknowledged: -1, Load: 100, Cut: 5}, true},
		"nothing happened, which agree": {report.Count{}, false},
	} {
		if err := test.count.Check(); test.fine {
			require.NoError(t, err, name)
		} else {
			require.Error(t, err, name)
		}
	}
}

func TestRewriteChangesWhatIsBetweenTheMarksOnly(t *testing.T) {
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

func TestRewriteRefusesADocumentWithoutItsMarks(t *testing.T) {
	t.Parallel()
	for _, document := range []string{
		"", "<!-- bench:begin -->", "<!-- bench:end --> <!-- bench:begin -->",
		"<!-- bench:begin --> <!-- bench:begin --> <!-- bench:end -->", "<!-- bench:begin --><!-- bench:end --><!-- bench:end -->",
	} {
		_, err := report.Rewrite(document, "x")
		require.Error(t, err, document)
	}
}
