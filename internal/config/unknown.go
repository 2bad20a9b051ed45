package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

const ownPrefix = "AFTERWRITE_"

// elsewhere are the AFTERWRITE_ variables that other packages read.
var elsewhere = []string{"AFTERWRITE_REDIS_SERVER", "AFTERWRITE_POSTGRES_BIN"}

// serviceLink matches "name=value" of the variables that Kubernetes sets for a service named afterwrite-something.
var serviceLink = regexp.MustCompile(`^[A-Z0-9_]+(_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)|_PORT=[a-z]+://)`)

// Mistyped is a variable that begins with AFTERWRITE_ but has no effect.
type Mistyped struct {
	Name    string
	Nearest string // the most similar known name
}

// Unknown returns the variables of environment that begin with AFTERWRITE_ and that nothing reads, sorted by name.
func Unknown(environment map[string]string) []Mistyped {
	known := slices.Clone(elsewhere)
	for _, v := range Variables() {
		known = append(known, v.Name)
	}
	var unknown []Mistyped
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if !strings.HasPrefix(name, ownPrefix) || slices.Contains(known, name) || serviceLink.MatchString(name+"="+environment[name]) {
			continue
		}
		nearest := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
		unknown = append(unknown, Mistyped{Name: name, Nearest: nearest})
	}
	return unknown
}

// distance returns the Levenshtein distance of a and b in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
