package counter

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Patterns selects keys. A pattern is a key, or a prefix of keys followed by "*".
type Patterns []string

// ParsePatterns reads patterns that are separated by commas or spaces.
func ParsePatterns(text string) (Patterns, error) {
	all := strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
	for _, p := range all {
		literal := strings.TrimSuffix(p, "*")
		if strings.Contains(literal, "*") {
			return nil, fmt.Errorf("pattern %q: a * is only permitted at the end", p)
		}
		if _, err := ParseKey(literal); err != nil && literal != "" {
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	return all, nil
}

// Digest returns a text that is the same for patterns in another order or repeated, and differs for others. It is empty for none, and has
// 12 characters otherwise.
func (p Patterns) Digest() string {
	if len(p) == 0 {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join(slices.Compact(slices.Sorted(slices.Values(p))), ",")))
	const digestBytes = 6
	return hex.EncodeToString(sum[:digestBytes])
}

// Match reports whether a pattern selects the key.
func (p Patterns) Match(key Key) bool {
	return slices.ContainsFunc(p, func(one string) bool {
		prefix, open := strings.CutSuffix(one, "*")
		return string(key) == one || (open && strings.HasPrefix(string(key), prefix))
	})
}
