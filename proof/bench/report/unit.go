package report

import (
	"math"
	"strconv"
	"strings"
)

// Unit is what a figure counts.
type Unit string

// The units, as they follow a figure.
const (
	PerSecond  Unit = "/s"
	Millis     Unit = " ms"
	Micros     Unit = " µs"
	Seconds    Unit = " s"
	Bytes      Unit = " bytes"
	Rows       Unit = " rows"
	Allocs     Unit = " allocations"
	CPUSeconds Unit = " CPU s"
)

// Format returns a figure with its unit: at least three significant digits, thousands separated by commas.
func (u Unit) Format(figure float64) string { return number(figure) + string(u) }

// number returns three significant digits, or the whole number if it has more.
func number(v float64) string {
	switch size := math.Abs(v); {
	case size >= 100:
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case size >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// plain returns a goal as it was set: 0.75, 1,100, 3.
func plain(v float64) string {
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(v, 'f', -1, 64), ".")
	if fraction == "" {
		return thousands(whole)
	}
	return thousands(whole) + "." + fraction
}

// thousands separates the thousands of a whole number by commas.
func thousands(digits string) string {
	sign := ""
	if strings.HasPrefix(digits, "-") {
		sign, digits = "-", digits[1:]
	}
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return sign + digits
}
