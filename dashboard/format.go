package dashboard

import (
	"html/template"
	"strconv"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/health"
	"github.com/afterwrite/afterwrite/internal/operate"
)

// functions are the functions for templates.
var functions = template.FuncMap{
	"number": health.Number, "count": health.Count, "age": health.Age, "ago": ago, "rate": health.Rate, "size": size, "code": code,
}

// signed writes 1234567 as +1,234,567.
func signed(n int64) string {
	if n < 0 {
		return health.Number(n)
	}
	return "+" + health.Number(n)
}

// storedText is Stored.String with grouped digits.
func storedText(s operate.Stored) string {
	switch s.State {
	case operate.StateValue:
		return health.Number(s.Value) + " (version " + health.Number(s.Version) + ")"
	case operate.StateDeleted:
		return "deleted (version " + health.Number(s.Version) + ")"
	case operate.StateUnknownBase:
		return health.Number(s.Value) + " by " + health.Number(s.Version) + " writes on an unknown base"
	case operate.StateNone, operate.StateForeign, operate.StateUnknown:
	}
	return s.String()
}

// size writes bytes: 512 B, 1.5 MiB.
func size(bytes int64) string {
	value, unit := float64(bytes), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1000 {
			break
		}
		value, unit = value/1024, next
	}
	if unit == "B" || value >= 100 {
		return health.Number(int64(value+0.5)) + " " + unit
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + unit
}

// code marks text between backquotes as code.
func code(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		part = template.HTMLEscapeString(part)
		if i%2 == 1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return template.HTML(b.String()) //nolint:gosec // every part has been escaped
}

// ago writes a duration in one unit, for lists: 12 s, 5 min, 3 h, 12 d.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.Itoa(max(0, int(d/time.Second))) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	default:
		return strconv.Itoa(int(d/(24*time.Hour))) + " d"
	}
}
