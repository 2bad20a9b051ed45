package dashboard

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"github.com/afterwrite/afterwrite/internal/operate"
)

// functions are what templates can call.
var functions = template.FuncMap{
	"number": number, "count": count, "age": age, "ago": ago, "rate": rate, "size": size, "code": code,
}

// number writes 1234567 as 1,234,567.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(digits) - 3; i > start; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// signed writes 1234567 as +1,234,567.
func signed(n int64) string {
	if n < 0 {
		return number(n)
	}
	return "+" + number(n)
}

// storedText is Stored.String with numbers as they are everywhere here.
func storedText(s operate.Stored) string {
	switch s.State {
	case operate.StateValue:
		return number(s.Value) + " (version " + number(s.Version) + ")"
	case operate.StateDeleted:
		return "deleted (version " + number(s.Version) + ")"
	case operate.StateUnknownBase:
		return number(s.Value) + " by " + number(s.Version) + " writes on an unknown base"
	case operate.StateNone, operate.StateForeign, operate.StateUnknown:
	}
	return s.String()
}

// count writes how many there are of what.
func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

// age writes a duration in the precision that matters: 0.4 s, 12 s, 5 min 10 s, 34 min, 3 h 5 min, 2 d 3 h.
func age(d time.Duration) string {
	switch {
	case d < 50*time.Millisecond:
		return "0 s"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return strconv.FormatFloat(d.Truncate(time.Second).Seconds(), 'f', 0, 64) + " s"
	case d < 10*time.Minute:
		return pair(d, time.Minute, "min", time.Second, "s")
	case d < time.Hour:
		return strconv.FormatInt(int64(d/time.Minute), 10) + " min"
	case d < 24*time.Hour:
		return pair(d, time.Hour, "h", time.Minute, "min")
	default:
		return pair(d, 24*time.Hour, "d", time.Hour, "h")
	}
}

func pair(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	text := number(int64(d/large)) + " " + largeName
	if rest := d % large / small; rest > 0 {
		text += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return text
}

// rate writes what happens each second: 0, 0.4, 7.5, 1,204.
func rate(perSecond float64) string {
	switch {
	case perSecond <= 0:
		return "0"
	case perSecond < 0.05:
		return "<0.1"
	case perSecond < 9.95:
		return strings.TrimSuffix(strconv.FormatFloat(perSecond, 'f', 1, 64), ".0")
	default:
		return number(int64(perSecond + 0.5))
	}
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
		return number(int64(value+0.5)) + " " + unit
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + unit
}

// code marks what stands between backquotes as code.
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
