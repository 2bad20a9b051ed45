package mapping

import "strings"

const (
	uuidBytes = 36
	dateBytes = 10
)

// The texts of the smallest and the largest int, without the sign.
const (
	maxInt = "9223372036854775807"
	minInt = "9223372036854775808"
)

// scan returns the length in bytes of the value at the start of s, or 0 if there is none. A value ends where its type says so: a text
// before ':' or at the end, an int at the first byte that is not a digit.
func (t Type) scan(s string) int {
	switch t {
	case Int:
		return scanInt(s)
	case UUID:
		return scanUUID(s)
	case Date:
		return scanDate(s)
	case Text:
		if i := strings.IndexByte(s, ':'); i >= 0 {
			return i
		}
		return len(s)
	}
	return 0
}

func scanInt(s string) int {
	limit, start := maxInt, 0
	if s != "" && s[0] == '-' {
		limit, start = minInt, 1
	}
	end := start
	for end < len(s) && isDigit(s[end]) {
		end++
	}
	digits := s[start:end]
	switch {
	case digits == "", len(digits) > len(limit), len(digits) == len(limit) && digits > limit:
		return 0
	case digits[0] == '0' && end > 1: // leading zeros and -0
		return 0
	}
	return end
}

func scanUUID(s string) int {
	if len(s) < uuidBytes {
		return 0
	}
	for i := range uuidBytes {
		if !inUUID(i, s[i]) {
			return 0
		}
	}
	return uuidBytes
}

// inUUID reports whether a uuid can have c as its byte i.
func inUUID(i int, c byte) bool {
	switch i {
	case 8, 13, 18, 23:
		return c == '-'
	}
	return isDigit(c) || 'a' <= c && c <= 'f'
}

func scanDate(s string) int {
	if len(s) < dateBytes || s[4] != '-' || s[7] != '-' {
		return 0
	}
	for i := range dateBytes {
		if i != 4 && i != 7 && !isDigit(s[i]) {
			return 0
		}
	}
	two := func(i int) int { return 10*int(s[i]-'0') + int(s[i+1]-'0') }
	year, month, day := 100*two(0)+two(2), two(5), two(8)
	if year == 0 || month < 1 || month > 12 || day < 1 || day > daysIn(month, isLeap(year)) {
		return 0
	}
	return dateBytes
}

func isLeap(year int) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func daysIn(month int, leap bool) int {
	switch month {
	case 2:
		if leap {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
