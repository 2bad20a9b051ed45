package dashboard

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/sample"
)

// The measures of a chart's drawing: one unit across is a second. static/live.js has the same.
const (
	chartWidth  = sample.Kept
	chartHeight = 200

	// chartGap is how many ms may be between two samples that a line connects.
	chartGap = 3500
)

// chart is a drawing of the history. The script draws it again with each new sample, from the lines' keys.
type chart struct {
	Title string
	Kind  string // of its values: rate, keys or age
	Lines []line
	Top   string // the value at the upper edge
	Half  string
	Width int
}

// line is one of its lines.
type line struct {
	Key   string // the name of the value in a sample's JSON
	Label string
	Class string
	Path  string // the attribute d of an SVG path
	Now   string

	value func(sample.Sample) float64
}

// charts are those of the overview.
func charts(c condition) []chart {
	all := []chart{
		{Title: "Writes and rows", Kind: "rate", Lines: []line{
			{Key: "w", Label: "writes", Class: "one", value: func(s sample.Sample) float64 { return s.Writes }},
			{Key: "r", Label: "rows to Postgres", Class: "two", value: func(s sample.Sample) float64 { return s.Rows }},
		}},
		{Title: "Backlog", Kind: "keys", Lines: []line{
			{Key: "d", Label: "dirty keys", Class: "one", value: func(s sample.Sample) float64 { return float64(s.Dirty) }},
		}},
		{Title: "Behind", Kind: "age", Lines: []line{
			{Key: "o", Label: "oldest unsynced", Class: "one", value: func(s sample.Sample) float64 { return float64(s.Oldest) }},
			{Key: "l99", Label: "sync lag p99", Class: "three", value: func(s sample.Sample) float64 { return float64(s.LagP99) }},
			{Key: "l50", Label: "p50", Class: "two", value: func(s sample.Sample) float64 { return float64(s.LagP50) }},
		}},
	}
	for i := range all {
		all[i].draw(c)
	}
	return all
}

func (c *chart) draw(of condition) {
	top := 0.0
	for _, l := range c.Lines {
		for _, s := range of.History {
			top = max(top, l.value(s))
		}
	}
	top = ceiling(top, c.Kind)
	c.Width, c.Top, c.Half = chartWidth, c.format(top), c.format(top/2)
	for i := range c.Lines {
		l := &c.Lines[i]
		l.Path = path(of, l.value, top)
		l.Now = c.format(l.value(of.Sample))
	}
}

// ceiling is the least round number that is not under value: one whose half is round too.
func ceiling(value float64, kind string) float64 {
	least := 10.0
	if kind == "age" {
		least = 2000
	}
	value = max(value, least)
	power := math.Pow(10, math.Floor(math.Log10(value)))
	for _, factor := range []float64{1, 2, 3, 4, 6, 8, 10} {
		if factor*power >= value {
			return factor * power
		}
	}
	return 10 * power
}

func (c *chart) format(value float64) string {
	switch {
	case value < 0:
		return "–"
	case c.Kind == "age":
		return age(time.Duration(value) * time.Millisecond)
	case c.Kind == "rate":
		return rate(value) + "/s"
	default:
		return number(int64(value))
	}
}

// path draws the values of the last 15 minutes. Where there are none, the line has a gap.
func path(c condition, value func(sample.Sample) float64, top float64) string {
	var b strings.Builder
	last := int64(0) // long before any sample
	for _, s := range c.History {
		v := value(s)
		x := chartWidth - float64(c.At-s.At)/1000
		if v < 0 || x < 0 {
			continue
		}
		command := "L"
		if s.At-last > chartGap {
			command = "M"
		}
		last = s.At
		b.WriteString(command + strconv.FormatFloat(x, 'f', 1, 64) + " " +
			strconv.FormatFloat(chartHeight*(1-v/top), 'f', 1, 64))
	}
	return b.String()
}
