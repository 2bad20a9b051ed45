// Package report turns what the benchmark has measured into figures, verdicts, a table, plots and files.
//
//	line := report.Line{What: "...", This: report.Side{Name: "afterwrite", Unit: report.PerSecond, Rounds: rates}, ...}
//	figure, err := line.Figure() // medians, and the median of the rounds' ratios
//	text := report.Table(lines)  // Markdown
//
// A line whose run did not add up has a Problem, and then no figure of it is shown anywhere.
package report
