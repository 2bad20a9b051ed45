package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// This file draws the plots without a library, because their text and axes follow the reader's light or dark theme. See
// docs/decisions/0009-libraries.md.

// Bar is one bar of a chart.
type Bar struct {
	Label string
	Value float64
	Text  string // printed beside the bar
	Mark  bool   // draw the bar in the accent colour
}

// Curve is a line of a chart. Its points are sorted by X.
type Curve struct {
	Label string
	X, Y  []float64
}

const (
	plotWidth = 720
	leftSpace = 190 // room for the labels of bars
	barStep   = 34
	barHigh   = 22
	topSpace  = 46
	lowSpace  = 34
)

const plotStyle = `<style>
text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600;font-size:15px}
.g{stroke:#d0d7de;stroke-width:1}.s{fill:#57606a;font-size:12px}
.b{fill:#8c959f}.a{fill:#0969da}.c0{stroke:#1a7f37;fill:#1a7f37}.c1{stroke:#0969da;fill:#0969da}.c2{stroke:#bc4c00;fill:#bc4c00}
polyline{fill:none!important;stroke-width:2}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.g{stroke:#3d444d}.s{fill:#9198a1}.b{fill:#6e7681}.a{fill:#4493f8}
.c0{stroke:#3fb950;fill:#3fb950}.c1{stroke:#4493f8;fill:#4493f8}.c2{stroke:#f0883e;fill:#f0883e}}
</style>`

// Bars draws a bar chart. With log the axis is logarithmic and starts at a power of ten.
func Bars(title, axis string, bars []Bar, log bool) string {
	scale := newScale(barValues(bars), log, leftSpace, plotWidth-130)
	if !log {
		scale.low = 0
	}
	height := topSpace + len(bars)*barStep + lowSpace
	var b strings.Builder
	open(&b, height, title)
	for _, tick := range scale.ticks() {
		x := scale.at(tick)
		fmt.Fprintf(&b, `<line class="g" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, x, topSpace-6, x, height-lowSpace)
		fmt.Fprintf(&b, `<text class="s" x="%.1f" y="%d" text-anchor="middle">%s</text>`, x, height-lowSpace+18, short(tick))
	}
	for i, bar := range bars {
		y, class := topSpace+i*barStep, "b"
		if bar.Mark {
			class = "a"
		}
		end := max(scale.at(bar.Value), leftSpace+1)
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, leftSpace-10, y+16, html.EscapeString(bar.Label))
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, class, leftSpace, y, end-leftSpace, barHigh)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`, end+8, y+16, html.EscapeString(bar.Text))
	}
	fmt.Fprintf(&b, `<text class="s" x="%d" y="%d" text-anchor="end">%s</text>`, plotWidth-10, height-lowSpace+18, html.EscapeString(axis))
	b.WriteString("</svg>\n")
	return b.String()
}

func barValues(bars []Bar) []float64 {
	values := make([]float64, len(bars))
	for i, bar := range bars {
		values[i] = bar.Value
	}
	return values
}

// Curves draws lines with a linear X axis and a logarithmic Y axis.
func Curves(title, xAxis, yAxis string, curves []Curve) string {
	const left, right, height = 70, plotWidth - 80, 340
	var xs, ys []float64
	for _, c := range curves {
		xs, ys = append(xs, c.X...), append(ys, c.Y...)
	}
	x := newScale(xs, false, left, right)
	x.low = 0
	y := newScale(ys, true, height-lowSpace-14, topSpace)
	var b strings.Builder
	open(&b, height, title)
	for _, tick := range y.ticks() {
		at := y.at(tick)
		fmt.Fprintf(&b, `<line class="g" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`, left, at, right, at)
		fmt.Fprintf(&b, `<text class="s" x="%d" y="%.1f" text-anchor="end">%s</text>`, left-8, at+4, html.EscapeString(short(tick)+yAxis))
	}
	for _, tick := range x.ticks() {
		fmt.Fprintf(&b, `<text class="s" x="%.1f" y="%d" text-anchor="middle">%s</text>`, x.at(tick), height-lowSpace+6, short(tick))
	}
	for i, c := range curves {
		curve(&b, c, i%3, x, y)
	}
	fmt.Fprintf(&b, `<text class="s" x="%d" y="%d" text-anchor="end">%s</text>`, right, height-6, html.EscapeString(xAxis))
	b.WriteString("</svg>\n")
	return b.String()
}

// curve draws a line with its points, and its label at its end.
func curve(b *strings.Builder, c Curve, color int, x, y scale) {
	fmt.Fprintf(b, `<g class="c%d"><polyline points="`, color)
	for i := range c.X {
		fmt.Fprintf(b, "%.1f,%.1f ", x.at(c.X[i]), y.at(c.Y[i]))
	}
	b.WriteString(`"/>`)
	for i := range c.X {
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5"/>`, x.at(c.X[i]), y.at(c.Y[i]))
	}
	b.WriteString("</g>")
	if last := len(c.X) - 1; last >= 0 {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f">%s</text>`, x.at(c.X[last])+9, y.at(c.Y[last])+4, html.EscapeString(c.Label))
	}
}

func open(b *strings.Builder, height int, title string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`,
		plotWidth, height, plotWidth, height)
	title = html.EscapeString(title)
	fmt.Fprintf(b, `<title>%s</title>%s<text class="t" x="10" y="22">%s</text>`, title, plotStyle, title)
}

// scale maps values to coordinates.
type scale struct {
	low, high float64
	log       bool
	from, to  float64
}

func newScale(values []float64, log bool, from, to float64) scale {
	s := scale{low: math.Inf(1), high: math.Inf(-1), log: log, from: from, to: to}
	for _, v := range values {
		if v > 0 || !log {
			s.low, s.high = min(s.low, v), max(s.high, v)
		}
	}
	if math.IsInf(s.low, 0) { // no values
		s.low, s.high = 1, 10
	}
	if log { // start at a power of ten
		s.low = math.Pow(10, math.Floor(math.Log10(s.low)))
		s.high = max(s.high, s.low*10)
	}
	return s
}

// at returns the coordinate of v. A value below the scale gets the coordinate of the scale's start.
func (s scale) at(v float64) float64 {
	v = max(v, s.low)
	part := (v - s.low) / (s.high - s.low)
	if s.log {
		part = math.Log10(v/s.low) / math.Log10(s.high/s.low)
	}
	return s.from + part*(s.to-s.from)
}

// ticks returns powers of ten for a logarithmic scale, with their multiples by 2 and 5 if there are few. For a linear scale it returns
// up to six values.
func (s scale) ticks() []float64 {
	var ticks []float64
	if s.log {
		steps := []float64{1}
		if s.high/s.low < 500 {
			steps = []float64{1, 2, 5}
		}
		for power := s.low; power <= s.high; power *= 10 {
			for _, step := range steps {
				if step*power <= s.high*1.0001 {
					ticks = append(ticks, step*power)
				}
			}
		}
		return ticks
	}
	step := math.Pow(10, math.Floor(math.Log10(s.high-s.low)))
	for _, finer := range []float64{1, 2, 5} {
		if (s.high-s.low)/(step/finer) <= 6 {
			step /= finer
		}
	}
	for v := math.Ceil(s.low/step) * step; v <= s.high*1.0001; v += step {
		ticks = append(ticks, v)
	}
	return ticks
}

// short formats 50000 as 50k.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	default:
		return fmt.Sprintf("%g", math.Round(v*1e6)/1e6)
	}
}
