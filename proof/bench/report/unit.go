package report

import (
	"strconv"
	"strings"
)

// Unit is the unit of a figure.
type Unit string

// The units, as written after a figure.
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

// Format returns a figure with its unit. It has at least three significant digits, with commas between thousands.
func (u Unit) Format(figure float64) string { return number(figure) + string(u) }

// number rounds to three significant digits, or to a whole number if that has more.
func number(v float64) string {
	switch {
	case v >= 100:
		return thousands(strconv.FormatFloat(v, 'f', 0, 64))
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// plain formats a goal without rounding: 0.75, 1,100, 3.
func plain(v float64) string {
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(v, 'f', -1, 64), ".")
	if fraction == "" {
		return thousands(whole)
	}
	return thousands(whole) + "." + fraction
}

// thousands puts commas between the thousands of a whole number.
func thousands(digits string) string {
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
