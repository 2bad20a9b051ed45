package mapping

import "github.com/afterwrite/afterwrite/internal/counter"

// Pattern is a pattern of keys: literals with placeholders in between, as in "post:{id:int}:likes".
type Pattern struct {
	text         string
	placeholders []Placeholder
}

// String returns the pattern as it is written in the file.
func (p Pattern) String() string { return p.text }

// Placeholders returns the placeholders in the order of the pattern. The caller must not change them.
func (p Pattern) Placeholders() []Placeholder { return p.placeholders }

// Match returns the mapping of key and the values of its placeholders, or nil if the key has none.
func (m *Mappings) Match(counter.Key) (*Mapping, []string) {
	return nil, nil
}
