package mapping

import (
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

func newMappings(all []*Mapping) *Mappings { return &Mappings{all: all, index: newIndex(all)} }

// Match returns the mapping of key and the values of its placeholders, or nil if the key has none. The whole key has to match. It does
// not block, and allocates only the values. A nil or empty Mappings matches nothing.
func (m *Mappings) Match(key counter.Key) (*Mapping, []string) {
	if m == nil || m.index == nil || key == "" || len(key) > counter.MaxKeyBytes {
		return nil, nil
	}
	var found spans
	one := m.index.find(string(key), 0, 0, &found)
	if one == nil {
		return nil, nil
	}
	return one, found.values(string(key), len(one.Pattern.placeholders))
}

// spans are the places of the values in a key, which has at most 255 bytes.
type spans [maxPlaceholders]struct{ from, to uint8 }

func (s *spans) values(key string, n int) []string {
	if n == 0 {
		return nil
	}
	values := make([]string, n)
	for i := range values {
		values[i] = key[s[i].from:s[i].to]
	}
	return values
}

// CounterKey returns the key whose placeholders have values, in the order of the pattern. It returns false if there is no such key: a value
// is not in the form of its type, a text is empty or has a ':', or the key would be invalid (longer than 255 bytes, control characters).
func (m *Mapping) CounterKey(values []string) (counter.Key, bool) {
	p := &m.Pattern
	if len(values) != len(p.placeholders) {
		return "", false
	}
	var b strings.Builder
	b.WriteString(p.first())
	for i, v := range values {
		if v == "" || p.placeholders[i].Type.scan(v) != len(v) {
			return "", false
		}
		b.WriteString(v)
		b.WriteString(p.literals[i+1])
	}
	key, err := counter.ParseKey(b.String())
	return key, err == nil
}
