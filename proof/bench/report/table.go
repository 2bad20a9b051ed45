package report

import (
	"fmt"
	"strings"
)

// Table returns the lines as a Markdown table. A Broken line shows its problem instead of figures.
func Table(lines []Line) (string, error) {
	var b strings.Builder
	b.WriteString("| what | this | peer | ratio | spread | goal | verdict |\n")
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
		peer, ratio, unit := "", "", l.This.Unit
		if l.Peer.Name != "" {
			peer = l.Peer.Unit.Format(f.Peer) + " (" + l.Peer.Name + ")"
			ratio, unit = number(f.Ratio)+" x", ""
		}
		spread := number(f.Min) + " to " + unit.Format(f.Max)
		if len(l.This.Rounds) == 1 {
			spread = "one run"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n",
			l.What, l.This.Unit.Format(f.This), peer, ratio, spread, l.goal(), f.Verdict.mark())
	}
	return b.String(), nil
}

// mark makes a missed goal bold.
func (v Verdict) mark() string {
	if v == Misses {
		return "**misses**"
	}
	return string(v)
}

// goal is the text of the goal; "" if there is none.
func (l Line) goal() string {
	unit := " x"
	if l.Goal.OfThis || l.Peer.Name == "" {
		unit = string(l.This.Unit)
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
