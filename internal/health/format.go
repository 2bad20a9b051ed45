package health

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Number writes 1234567 as 1,234,567.
func Number(n int64) string {
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

// Count writes a number with its noun: 1 key, 2 keys.
func Count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Number(n) + " " + many
}

// Age writes a duration with two or three significant digits: 0.4 s, 12 s, 5 min 10 s, 34 min, 3 h 5 min, 2 d 3 h.
func Age(d time.Duration) string {
	switch {
	case d < 50*time.Millisecond:
		return "0 s"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return strconv.FormatFloat(d.Truncate(time.Second).Seconds(), 'f', 0, 64) + " s"
	case d < 10*time.Minute:
		return twoUnits(d, time.Minute, "min", time.Second, "s")
	case d < time.Hour:
		return strconv.FormatInt(int64(d/time.Minute), 10) + " min"
	case d < 24*time.Hour:
		return twoUnits(d, time.Hour, "h", time.Minute, "min")
	default:
		return twoUnits(d, 24*time.Hour, "d", time.Hour, "h")
	}
}

func twoUnits(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	text := Number(int64(d/large)) + " " + largeName
	if rest := d % large / small; rest > 0 {
		text += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return text
}

// Rate writes a number per second: 0, 0.4, 7.5, 1,204.
func Rate(perSecond float64) string {
	switch {
	case perSecond <= 0:
		return "0"
	case perSecond < 0.05:
		return "<0.1"
	case perSecond < 9.95:
		return strings.TrimSuffix(strconv.FormatFloat(perSecond, 'f', 1, 64), ".0")
	default:
		return Number(int64(perSecond + 0.5))
	}
}
