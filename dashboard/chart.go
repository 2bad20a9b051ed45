package dashboard

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/health"
)

// The size of a chart. One unit of its width is a second. static/live.js has the same values.
const (
	chartWidth  = health.Kept
	chartHeight = 200

	// chartGap is the longest time between two samples that are connected by a line, in ms.
	chartGap = 3500
)

// chart draws the history. live.js redraws it with each new sample.
type chart struct {
	Title string
	Kind  string // kind of the values: rate, keys or age
	Lines []line
	Top   string // the value at the upper edge
	Half  string
	Width int
}

// line is a line of a chart.
type line struct {
	Key   string // JSON name of the value in a sample
	Label string
	Class string
	Path  string // attribute d of the SVG path
	Now   string

	value func(health.Sample) float64
}

// charts returns the charts of the overview.
func charts(c health.Snapshot) []chart {
	all := []chart{
		{Title: "Writes and rows", Kind: "rate", Lines: []line{
			{Key: "w", Label: "writes", Class: "one", value: func(s health.Sample) float64 { return s.Writes }},
			{Key: "r", Label: "rows to Postgres", Class: "two", value: func(s health.Sample) float64 { return s.Rows }},
		}},
		{Title: "Backlog", Kind: "keys", Lines: []line{
			{Key: "d", Label: "dirty keys", Class: "one", value: func(s health.Sample) float64 { return float64(s.Dirty) }},
		}},
		{Title: "Behind", Kind: "age", Lines: []line{
			{Key: "o", Label: "oldest unsynced", Class: "one", value: func(s health.Sample) float64 { return float64(s.Oldest) }},
			{Key: "l99", Label: "sync lag p99", Class: "three", value: func(s health.Sample) float64 { return float64(s.LagP99) }},
			{Key: "l50", Label: "p50", Class: "two", value: func(s health.Sample) float64 { return float64(s.LagP50) }},
		}},
	}
	for i := range all {
		all[i].draw(c)
	}
	return all
}

func (c *chart) draw(of health.Snapshot) {
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

// ceiling returns the smallest round number that is at least value. Its half is round too.
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
		return health.Age(time.Duration(value) * time.Millisecond)
	case c.Kind == "rate":
		return health.Rate(value) + "/s"
	default:
		return health.Number(int64(value))
	}
}

// path draws the values of the last 15 minutes, with gaps where samples are missing.
func path(c health.Snapshot, value func(health.Sample) float64, top float64) string {
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
