package mapping

import (
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// newMappings returns all with an index by the first byte of a key. A mapping whose pattern begins with a placeholder is under each byte.
func newMappings(all []*Mapping) *Mappings {
	m := &Mappings{all: all}
	for _, one := range all {
		if first := one.Pattern.first(); first != "" {
			m.byFirst[first[0]] = append(m.byFirst[first[0]], one)
			continue
		}
		for c := range m.byFirst {
			m.byFirst[c] = append(m.byFirst[c], one)
		}
	}
	return m
}

// Match returns the mapping of key and the values of its placeholders, or nil if the key has none. The whole key has to match. It does
// not block, and allocates only the values. A nil Mappings matches nothing.
func (m *Mappings) Match(key counter.Key) (*Mapping, []string) {
	if m == nil || key == "" || len(key) > counter.MaxKeyBytes {
		return nil, nil
	}
	var found spans
	for _, one := range m.byFirst[key[0]] {
		if one.find(string(key), &found) {
			return one, found.values(string(key), len(one.Pattern.placeholders))
		}
	}
	return nil, nil
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

// find reports whether key, of at most 255 bytes, matches the pattern, and sets the places of the values.
func (m *Mapping) find(key string, found *spans) bool {
	p := &m.Pattern
	if !strings.HasPrefix(key, p.first()) || !strings.HasSuffix(key, p.last()) {
		return false
	}
	at := len(p.first())
	for i := range p.placeholders {
		n := p.placeholders[i].Type.scan(key[at:])
		next := p.literals[i+1]
		if n == 0 || !strings.HasPrefix(key[at+n:], next) {
			return false
		}
		found[i].from, found[i].to = uint8(at), uint8(at+n) //nolint:gosec // at most 255
		at += n + len(next)
	}
	return at == len(key)
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
