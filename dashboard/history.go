package dashboard

import (
	"context"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/health"
)

const (
	// maxCharted bounds the operations of the chart of one counter.
	maxCharted = 500
	// maxTabled bounds those of the table below it.
	maxTabled = 50
)

// Historian reads the histories of counters. *catalog.Catalog implements it.
type Historian interface {
	// Recording reports whether some counters have a history. The answer never changes.
	Recording() bool
	// Latest returns the last operations on a counter, in order. Every error is a *counter.Error.
	Latest(ctx context.Context, key counter.Key, limit int) ([]catalog.Recorded, error)
}

// historyView is the history of a counter, for key.html.
type historyView struct {
	Chart      *valueChart // nil: there are not two values to draw
	Operations []operationView
	Waiting    int64 // operations among the charted ones that Postgres does not have yet
}

// operationView is a row of the table of operations, the last one first.
type operationView struct {
	Version, Change, Amount, Value string
	At                             time.Time
	Who, Note                      string
	Synced                         bool
}

// valueChart draws the value of a counter over time. A vertical step is an operation.
type valueChart struct {
	Width             int
	Path              string // attribute d of the SVG path
	Top, Half, Bottom string
	From, To          string
	Count             int // operations
}

// history returns the history of a counter, or nil if it has none or cannot be read.
func (p *keyPage) history(ctx context.Context, key counter.Key) *historyView {
	if p.historian == nil || !p.historian.Recording() {
		return nil
	}
	all, err := p.historian.Latest(ctx, key, maxCharted)
	if err != nil {
		p.log.Warn("the history of a counter could not be read", "key", key, "error", err)
		return nil
	}
	if len(all) == 0 {
		return nil
	}
	v := &historyView{Chart: newValueChart(all)}
	for i := len(all) - 1; i >= 0; i-- {
		if !all[i].Synced {
			v.Waiting++
		}
		if len(v.Operations) < maxTabled {
			v.Operations = append(v.Operations, newOperationView(&all[i]))
		}
	}
	return v
}

func newOperationView(r *catalog.Recorded) operationView {
	v := operationView{
		Version: health.Number(r.Version), Change: string(r.Change), Value: notKnown, At: r.At, Who: r.Caller, Note: r.Note,
		Synced: r.Synced,
	}
	switch {
	case r.Deleted:
		v.Value = "deleted"
	case r.Known:
		v.Value = health.Number(r.Value)
	}
	switch {
	case r.Deleted:
	case r.Change == counter.Incremented:
		v.Amount = signed(r.Amount)
	default:
		v.Amount = health.Number(r.Amount)
	}
	return v
}

// newValueChart draws operations in order. It leaves a gap where the counter does not exist, or where its value is not known.
func newValueChart(all []catalog.Recorded) *valueChart {
	low, high, drawn := int64(math.MaxInt64), int64(math.MinInt64), 0
	for i := range all {
		if hasValue(&all[i]) {
			low, high, drawn = min(low, all[i].Value), max(high, all[i].Value), drawn+1
		}
	}
	first, last := all[0].At, all[len(all)-1].At
	if drawn < 2 || !last.After(first) {
		return nil
	}
	c := &valueChart{
		Width: chartWidth, Count: len(all), From: first.UTC().Format(time.DateTime), To: last.UTC().Format(time.DateTime),
	}
	if low == high {
		c.Half = health.Number(low)
	} else {
		c.Top, c.Bottom = health.Number(high), health.Number(low)
	}
	var b strings.Builder
	drawing := false
	for i := range all {
		r := &all[i]
		x := chartWidth * max(0, float64(r.At.Sub(first))/float64(last.Sub(first))) // a clock may have been set back
		if drawing {
			b.WriteString("H" + coordinate(x))
		}
		if !hasValue(r) {
			drawing = false
			continue
		}
		y := chartHeight / 2.0
		if low != high { // as floats, since the difference may exceed an int64
			y = chartHeight * (1 - (float64(r.Value)-float64(low))/(float64(high)-float64(low)))
		}
		if drawing {
			b.WriteString("V" + coordinate(y))
		} else {
			b.WriteString("M" + coordinate(x) + " " + coordinate(y))
		}
		drawing = true
	}
	c.Path = b.String()
	return c
}

func hasValue(r *catalog.Recorded) bool { return r.Known && !r.Deleted }

func coordinate(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
