package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/report"
)

// results is the content of results.json.
type results struct {
	When    time.Time                       `json:"when"`
	Took    float64                         `json:"took_seconds"`
	Rounds  int                             `json:"rounds"`
	Seconds int                             `json:"seconds"`
	Machine machine                         `json:"machine"`
	Lines   []resultLine                    `json:"lines"`
	CPU     map[string]map[string][]float64 `json:"cpu_seconds_per_million_increments"`
	// Figures holds all measurements by name, one figure for each round, without those of failed runs.
	Figures  map[string][]float64      `json:"figures"`
	Counts   map[string][]report.Count `json:"counts"`
	Problems map[string]string         `json:"problems,omitempty"`
}

type resultLine struct {
	report.Line

	Figure report.Figure `json:"figure"`
}

// errProblems means that some comparisons have no figures.
var errProblems = errors.New("some runs failed or did not add up: see above")

// publish prints the table and writes the files.
func (b *bench) publish(chosen []comparison, m machine, took time.Duration) error {
	lines := b.lines(chosen)
	text, err := b.text(lines, m, took)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.stdout, "\n%s", text)
	if err := os.MkdirAll(b.out, 0o755); err != nil { //nolint:gosec // results are public
		return fmt.Errorf("make %s: %w", b.out, err)
	}
	if err := b.writeResults(lines, m, took); err != nil {
		return err
	}
	if err := b.writePlots(); err != nil {
		return err
	}
	if len(b.notes.problems) > 0 {
		return errProblems
	}
	if b.document {
		return report.RewriteFile("docs/performance.md", text)
	}
	return nil
}

// text returns the generated part of docs/performance.md: the tables, and a description of the run.
func (b *bench) text(lines []report.Line, m machine, took time.Duration) (string, error) {
	table, err := report.Table(lines)
	if err != nil {
		return "", err
	}
	var t strings.Builder
	t.WriteString(table)
	t.WriteString(b.cpuTable())
	fmt.Fprintf(&t, "\n%s: %d cores of %s, %d GB, Linux %s; Redis %s, PostgreSQL %s, Go %s, wrk %s, commit %s. "+
		"%sMedians of %d rounds of %d s; the longest runs have at most %d rounds. "+
		"The load ran on the same machine. `make bench` repeats all of it in %.0f minutes.\n",
		time.Now().UTC().Format("2006-01-02"), m.Cores, m.CPU, m.MemoryGB, m.Kernel, m.Redis, m.Postgres, m.Go, m.WRK, m.Commit,
		b.previousNote(), b.rounds, b.seconds, some, took.Minutes())
	return t.String(), nil
}

// previousNote names the previous version if it was measured.
func (b *bench) previousNote() string {
	commit := b.previousOf(b.chosen())
	if commit == "" {
		return ""
	}
	return fmt.Sprintf("The previous version is commit %.7s. ", commit)
}

// cpuTable returns a table of the CPU time of each part of afterwrite, by the distribution of the keys.
func (b *bench) cpuTable() string {
	if len(b.cpu) == 0 {
		return ""
	}
	order := []string{"hot", "zipf", "uniform"}
	var t strings.Builder
	t.WriteString("\n| CPU seconds per 1,000,000 increments | hot | zipf | uniform |\n| --- | --- | --- | --- |\n")
	sums := make(map[string]float64)
	for _, process := range cpuOrder {
		t.WriteString("| " + process + " |")
		for _, keys := range order {
			median := report.Median(b.cpu[keys][process])
			sums[keys] += median
			t.WriteString(cpuCell(median, b.cpu[keys] != nil))
		}
		t.WriteString("\n")
	}
	t.WriteString("| total |")
	for _, keys := range order {
		t.WriteString(cpuCell(sums[keys], b.cpu[keys] != nil))
	}
	return t.String() + "\n"
}

// cpuCell returns an empty cell for a distribution that was not measured.
func cpuCell(seconds float64, measured bool) string {
	if !measured {
		return " |"
	}
	return fmt.Sprintf(" %.2f |", seconds)
}

func (b *bench) writeResults(lines []report.Line, m machine, took time.Duration) error {
	r := results{
		When: time.Now().UTC().Truncate(time.Second), Took: took.Seconds(), Rounds: b.rounds, Seconds: b.seconds, Machine: m,
		CPU: b.cpu, Figures: make(map[string][]float64), Counts: b.notes.counts, Problems: b.notes.problems,
	}
	for _, l := range lines {
		if l.Problem != "" {
			l.Subject.Rounds, l.Peer.Rounds = nil, nil
		}
		figure, err := l.Figure()
		if err != nil {
			return err
		}
		r.Lines = append(r.Lines, resultLine{Line: l, Figure: figure})
	}
	for name, rounds := range b.notes.figures {
		if b.problem(name) == "" {
			r.Figures[name] = rounds
		}
	}
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	return b.write("results.json", append(text, '\n'))
}

func (b *bench) write(name string, text []byte) error {
	if err := os.WriteFile(filepath.Join(b.out, name), text, 0o644); err != nil { //nolint:gosec // results are public
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// writePlots draws the plots. It does not change plots without measurements.
func (b *bench) writePlots() error {
	var problems []error
	if bars := b.bars(singleBars); len(bars) > 1 {
		chart := report.Bars("Single increments over HTTP, per second", "log scale", bars, true)
		problems = append(problems, b.write("single.svg", []byte(chart)))
	}
	if bars := b.bars(drainBars); len(bars) > 1 {
		chart := report.Bars("1,000,000 dirty keys to Postgres, rows per second", "", bars, false)
		problems = append(problems, b.write("drain.svg", []byte(chart)))
	}
	if curves := b.latencyCurves(); len(curves) > 0 {
		title := "Latency of a write by rate, from when it was due (log scale)"
		problems = append(problems, b.write("latency.svg", []byte(report.Curves(title, "writes per second", " ms", curves))))
	}
	return errors.Join(problems...)
}

// plotted is the label of a bar and the name of its figure.
type plotted struct{ label, figure string }

var (
	singleBars = []plotted{
		{"no-op, uniform", "uniform/noop/rate"},
		{"afterwrite, uniform", uniformRate},
		{"afterwrite, zipf", zipfRate},
		{"afterwrite, one hot key", hotRate},
		{"webdis, uniform", "uniform/webdis/rate"},
		{"naive until drained", "uniform/naive/sustained"},
		{"write-through, uniform", "uniform/through/rate"},
		{"direct, uniform", "uniform/direct/rate"},
		{"direct, one hot key", "hot/direct/rate"},
	}
	drainBars = []plotted{
		{"pgbench's upsert alone", "pgbench/rate"},
		{"afterwrite, steady", "million/afterwrite/steady"},
		{"afterwrite, total", drainRate},
		{"the previous version", "million/previous/drain"},
	}
)

func (b *bench) bars(list []plotted) []report.Bar {
	var bars []report.Bar
	for _, p := range list {
		if rounds := b.notes.figures[p.figure]; len(rounds) > 0 && b.problem(p.figure) == "" {
			median := report.Median(rounds)
			bars = append(bars, report.Bar{
				Label: p.label, Value: median, Text: report.PerSecond.Format(median), Mark: strings.HasPrefix(p.label, "afterwrite"),
			})
		}
	}
	return bars
}

// latencyCurves returns the percentiles of the latency by rate.
func (b *bench) latencyCurves() []report.Curve {
	var curves []report.Curve
	for _, c := range []struct{ label, figure string }{{"p50", "p50"}, {"p99", "p99"}, {"p99.9", "p999"}} {
		curve := report.Curve{Label: c.label}
		for _, percent := range []int{10, 25, halfPercent, 75} {
			name := latencyName(percent)
			if rounds := b.notes.figures[name+"/"+c.figure]; len(rounds) > 0 && b.problem(name+"/"+c.figure) == "" {
				curve.X = append(curve.X, report.Median(b.notes.figures[name+"/rate"]))
				curve.Y = append(curve.Y, report.Median(rounds))
			}
		}
		if len(curve.X) > 1 {
			curves = append(curves, curve)
		}
	}
	return curves
}
