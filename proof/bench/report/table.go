package report

import (
	"fmt"
	"os"
	"strings"
)

// Table returns the lines as a Markdown table. A Broken line has its problem in the place of figures.
func Table(lines []Line) (string, error) {
	var b strings.Builder
	b.WriteString("| what | afterwrite | peer | ratio | spread | goal | verdict |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- |\n")
	for _, l := range lines {
		f, err := l.Figure()
		if err != nil {
			return "", err
		}
		if f.Verdict == Broken {
			fmt.Fprintf(&b, "| %s | | | | | %s | **%s**: %s |\n", l.What, l.goal(), Broken, cell(l.Problem))
			continue
		}
		peer, ratio, unit := "", "", l.Subject.Unit
		if l.Peer.Name != "" {
			peer = l.Peer.Unit.Format(f.Peer) + " (" + l.Peer.Name + ")"
			ratio, unit = number(f.Ratio)+" x", ""
		}
		spread := number(f.Min) + " to " + unit.Format(f.Max)
		if len(l.Subject.Rounds) == 1 {
			spread = "one run"
		}
		verdict := string(f.Verdict)
		if f.Verdict == Misses {
			verdict = "**" + verdict + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n",
			l.What, l.Subject.Unit.Format(f.Subject), peer, ratio, spread, l.goal(), verdict)
	}
	return b.String(), nil
}

// goal formats the goal; "" if there is none.
func (l Line) goal() string {
	unit := " x"
	if l.absolute() {
		unit = string(l.Subject.Unit)
	}
	switch {
	case l.Goal.AtLeast != 0:
		return "≥ " + plain(l.Goal.AtLeast) + unit
	case l.Goal.AtMost != 0:
		return "≤ " + plain(l.Goal.AtMost) + unit
	default:
		return ""
	}
}

// cell escapes a text for a cell of the table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ").Replace(text)
}

// The benchmark rewrites the text between these marks.
const (
	markBegin = "<!-- bench:begin -->"
	markEnd   = "<!-- bench:end -->"
)

// RewriteFile replaces the text between the two marks in a file. Each mark must occur once, in this order.
func RewriteFile(path, text string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the document: %w", err)
	}
	document := string(content)
	before, rest, found := strings.Cut(document, markBegin)
	_, after, ended := strings.Cut(rest, markEnd)
	if !found || !ended || strings.Count(document, markBegin) != 1 || strings.Count(document, markEnd) != 1 {
		return fmt.Errorf("%s must have the lines %s and %s once, in this order", path, markBegin, markEnd)
	}
	document = before + markBegin + "\n" + strings.TrimSpace(text) + "\n" + markEnd + after
	if err := os.WriteFile(path, []byte(document), 0o600); err != nil { //nolint:gosec // an existing file keeps its mode
		return fmt.Errorf("write the document: %w", err)
	}
	return nil
}
