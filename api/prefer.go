package api

import (
	"net/http"
	"strings"
)

// preferMinimal is the preference that is honoured, as Preference-Applied gives it back.
const preferMinimal = "return=minimal"

// prefersMinimal reports whether the client prefers to get no value back: return=minimal among the preferences of RFC 7240.
// Names and this value have no case, the value may be quoted, parameters are skipped, and of several preferences of one
// name the first counts, also across several headers.
func prefersMinimal(h http.Header) bool {
	for _, line := range h["Prefer"] {
		for line != "" {
			var preference string
			preference, line = cut(line, ',')
			preference, _ = cut(preference, ';')
			name, value := cut(preference, '=')
			if strings.EqualFold(strings.TrimSpace(name), "return") {
				return strings.EqualFold(unquoted(strings.TrimSpace(value)), "minimal")
			}
		}
	}
	return false
}

// cut is strings.Cut at the first separator that is not within a quoted string.
func cut(s string, separator byte) (before, after string) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++ // what follows is part of the string, even if it is a quote
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// unquoted strips the quotes of a quoted string. Escapes in it are not undone: the only value looked for has none.
func unquoted(s string) string {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		return s[1 : len(s)-1]
	}
	return s
}
