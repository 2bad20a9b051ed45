package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/proof/bench/report"
)

func setup(t *testing.T) (*bench, *bytes.Buffer) {
	t.Helper()
	var printed bytes.Buffer
	return &bench{
		settings: settings{rounds: 2, seconds: 1, only: regexp.MustCompile("^single-uniform-(noop|direct)$"), out: t.TempDir()},
		stdout:   &printed, cpu: make(map[string]map[string][]float64),
		notes: notes{
			figures: map[string][]float64{
				"uniform/afterwrite/rate": {51234, 51234}, "uniform/noop/rate": {60000, 60000}, "uniform/direct/rate": {10000, 10000},
			},
			counts: make(map[string][]report.Count), problems: make(map[string]string),
		},
	}, &printed
}

func TestEveryFigureOfAComparisonIsMeasuredByARun(t *testing.T) {
	t.Parallel()
	ids := make(map[string]bool)
	for _, c := range comparisons(true) {
		require.False(t, ids[c.id], c.id)
		ids[c.id] = true
		for _, figure := range []string{c.subject, c.peer} {
			found := figure == ""
			for _, group := range groups() {
				for _, r := range group {
					found = found || strings.HasPrefix(figure, r.name+"/")
				}
			}
			require.True(t, found, "no run measures %s", figure)
		}
	}
}

func TestOnlyNeededRunsAreExecuted(t *testing.T) {
	t.Parallel()
	b, _ := setup(t)
	var names []string
	for _, group := range groups() {
		for _, r := range needed(group, b.chosen(), false) {
			names = append(names, r.name)
		}
	}
	require.ElementsMatch(t, []string{"uniform/afterwrite", "uniform/noop", "uniform/direct"}, names)
}

func TestPreviousVersionIsBuiltOnlyIfItIsCompared(t *testing.T) {
	t.Parallel()
	b, _ := setup(t)
	require.Empty(t, b.previousOf(b.chosen()))
	b.only = regexp.MustCompile("")
	require.Equal(t, previousCommit, b.previousOf(b.chosen()))
	b.profile = true
	require.Empty(t, b.previousOf(b.chosen()))
}

func TestOnlyFiguresOfChosenComparisonsAreWanted(t *testing.T) {
	t.Parallel()
	b, _ := setup(t)
	require.True(t, b.wanted("uniform/noop/rate"))
	require.True(t, b.wanted(uniformRate))
	require.False(t, b.wanted("million/afterwrite/row"))
}

func TestRunIsExecutedInItsFirstRoundsOnly(t *testing.T) {
	t.Parallel()
	b, _ := setup(t)
	done := 0
	for b.round = range 5 {
		require.NoError(t, b.execute(t.Context(), run{name: "x", rounds: some, do: func(context.Context, *bench) error {
			done++
			return nil
		}}))
	}
	require.Equal(t, some, done)
}

func TestBystanderReturnsItsSlowestWrite(t *testing.T) {
	t.Parallel()
	const stall = 100 * time.Millisecond
	keys := make(chan string, 1000)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		keys <- r.URL.Path
		if len(keys) == 5 {
			time.Sleep(stall)
		}
	}))
	defer server.Close()
	client := &bystander{api: server.URL}
	slowest, err := client.during(t.Context(), func(context.Context) error {
		for len(keys) < 8 {
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	require.NoError(t, err)
	require.GreaterOrEqual(t, slowest, stall)
	require.EqualValues(t, len(keys), client.written)
	require.Equal(t, "/v1/counters/bystander:0000000000/increment", <-keys)
}

func TestRotatedChangesFirstRunAndDirection(t *testing.T) {
	t.Parallel()
	runs := []run{{name: "a"}, {name: "b"}, {name: "c"}}
	order := func(round int) string {
		var all strings.Builder
		for _, r := range rotated(runs, round) {
			all.WriteString(r.name)
		}
		return all.String()
	}
	require.Equal(t, []string{"abc", "bac", "cab", "acb"}, []string{order(0), order(1), order(2), order(3)})
}

func TestFiguresOfABrokenRunAreNotPublished(t *testing.T) {
	t.Parallel()
	b, printed := setup(t)
	off := run{name: "uniform/direct", do: func(_ context.Context, b *bench) error {
		return b.check("uniform/direct", report.Count{Stored: 99, Acknowledged: -1, Load: 100, Cut: 10})
	}}
	require.NoError(t, b.execute(t.Context(), off), "other runs must go on")

	err := b.publish(b.chosen(), machine{}, time.Minute)

	require.ErrorIs(t, err, errProblems)
	require.NotContains(t, printed.String(), "10,000/s")
	require.Contains(t, printed.String(), "51,234/s | 60,000/s (no-op)", "other figures are shown")
	text, err := os.ReadFile(filepath.Join(b.out, "results.json"))
	require.NoError(t, err)
	var written results
	require.NoError(t, json.Unmarshal(text, &written))
	require.NotContains(t, written.Figures, "uniform/direct/rate")
	require.Contains(t, written.Figures, "uniform/noop/rate")
	require.Equal(t, report.Broken, written.Lines[1].Figure.Verdict)
	require.Empty(t, written.Lines[1].Peer.Rounds)
	plot, err := os.ReadFile(filepath.Join(b.out, "single.svg"))
	require.NoError(t, err)
	require.NotContains(t, string(plot), "direct")
}

func TestFailedRunIsNotRepeated(t *testing.T) {
	t.Parallel()
	b, _ := setup(t)
	b.notes.problems["x"] = "the first problem"
	require.NoError(t, b.execute(t.Context(), run{name: "x", do: func(context.Context, *bench) error {
		t.Fatal("the run was repeated")
		return nil
	}}))
	require.Equal(t, "the first problem", b.notes.problems["x"])
}

func TestPercentileReturnsOneOfTheValues(t *testing.T) {
	t.Parallel()
	values := make([]time.Duration, 0, 200)
	for i := range 200 {
		values = append(values, time.Duration(200-i))
	}
	require.Equal(t, time.Duration(198), percentile(values, 0.99))
	require.Equal(t, time.Duration(100), percentile(values, 0.5))
	require.Equal(t, time.Duration(7), percentile([]time.Duration{7}, 0.99))
	require.Zero(t, percentile(nil, 0.99))
}

func TestAllocationsOfParsesTheOutputOfGoTest(t *testing.T) {
	t.Parallel()
	const printed = "goos: linux\nBenchmarkIncrementAll-2 \t 10 \t 1 ns/op \t 0 B/op \t 99 allocs/op\n" +
		"BenchmarkIncrement-2   \t   20000\t      3851 ns/op\t     272 B/op\t       9 allocs/op\nPASS\n"
	n, err := allocationsOf(printed, "BenchmarkIncrement")
	require.NoError(t, err)
	require.InDelta(t, 9, n, 0)
	_, err = allocationsOf(printed, "BenchmarkEcho")
	require.Error(t, err)
}

func TestIncrementsIsAValidBatch(t *testing.T) {
	t.Parallel()
	var body struct {
		Operations []struct {
			Key string `json:"key"`
		} `json:"operations"`
	}
	require.NoError(t, json.Unmarshal([]byte(increments(3, func(i int) int { return 10 + i*5 })), &body))
	require.Len(t, body.Operations, 3)
	require.Equal(t, "counter:000000000020", body.Operations[2].Key)
}

func TestInvalidFlagsAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-rounds", "0"}, {"-seconds", "0"}, {"-only", "("}, {"extra"}, {"-bogus"}} {
		require.Equal(t, exitUsage, command(args, io.Discard, io.Discard), args)
	}
}

func TestCPUTableHasEmptyCellsForMissingMeasurements(t *testing.T) {
	t.Parallel()
	b, _ := setup(t)
	require.Empty(t, b.cpuTable())
	b.noteCPU("uniform", cpuTimes{"api": 2 * time.Second, "scheduler": 0}, 500_000)
	require.Contains(t, b.cpuTable(), "| api | | | 4.00 |\n")
	require.Contains(t, b.cpuTable(), "| scheduler | | | 0.00 |\n")
}
