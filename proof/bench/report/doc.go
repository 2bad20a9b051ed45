// Package report turns measurements into figures, verdicts, a table and plots.
//
//	line := report.Line{What: "...", This: report.Side{Name: "afterwrite", Unit: report.PerSecond, Rounds: rates}, ...}
//	figure, err := line.Figure() // medians, and the median of the rounds' ratios
//	text := report.Table(lines)  // Markdown
//
// A line whose run did not add up has a Problem, and none of its figures is shown.
package report
