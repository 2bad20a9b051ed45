package mapping

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Missing says what happens to a counter whose row does not exist in the user's table.
type Missing string

// The values of Missing.
const (
	Ignore Missing = "ignore" // the counter is written to the table counters only
	Insert Missing = "insert" // the row is inserted
	Dead   Missing = "dead"   // the counter is not written at all: it is refused, and becomes a dead letter
)

// Type is the type of a placeholder in a pattern. Each value has exactly one text, so two keys never mean the same row.
type Type string

// The types.
const (
	Int  Type = "int"  // a 64-bit integer in decimal, without leading zeros or a plus sign
	UUID Type = "uuid" // in lower case, with hyphens
	Text Type = "text" // one or more characters other than ':'
	Date Type = "date" // YYYY-MM-DD, of the years 0001 to 9999
)

// Mapping says which keys land in one column.
type Mapping struct {
	Name    string // unique: 1 to 63 characters of a-z, 0-9 and -
	Pattern Pattern
	Schema  string // of Table
	Table   string
	Where   []Column // finds the row; sorted by name
	Set     string   // the column that has the value
	Missing Missing
	// DeletedNull says that a delete sets the column to NULL instead of 0.
	DeletedNull bool
	// History says that every operation on the counters is kept.
	History bool
}

// Column is a column that finds the row.
type Column struct {
	Name string
	// Placeholder is the index of the placeholder whose value the column has, or -1 if the column has the value Constant.
	Placeholder int
	Constant    string
}

// Placeholder is a part of a pattern that stands for a value.
type Placeholder struct {
	Name string
	Type Type
}

// Mappings are all mappings of a file. A nil Mappings has none. They do not change, so they are safe for concurrent use.
type Mappings struct {
	all   []*Mapping
	index *node
}

// All returns the mappings in the order of the file. The caller must not change them.
func (m *Mappings) All() []*Mapping {
	if m == nil {
		return nil
	}
	return m.all
}

// Named returns the mapping with the name, or nil if there is none.
func (m *Mappings) Named(name string) *Mapping {
	for _, one := range m.All() {
		if one.Name == name {
			return one
		}
	}
	return nil
}

// Recorded reports whether the counter has a mapping that keeps its history.
func (m *Mappings) Recorded(key counter.Key) bool {
	one, _ := m.Match(key)
	return one != nil && one.History
}

// Recording reports whether a mapping keeps the history of its counters.
func (m *Mappings) Recording() bool {
	return slices.ContainsFunc(m.All(), func(one *Mapping) bool { return one.History })
}

// Digest returns a text that is the same for two files whose mappings do the same, and differs otherwise. It is empty for no mappings, and
// has 12 characters otherwise. The order of the mappings does not matter.
func (m *Mappings) Digest() string {
	if len(m.All()) == 0 {
		return ""
	}
	lines := make([]string, 0, len(m.All()))
	for _, one := range m.All() {
		line := fmt.Sprintf("%q %q %q %q %#v %q %q %t", // quoted, so that no text can look like two
			one.Name, one.Pattern.text, one.Schema, one.Table, one.Where, one.Set, one.Missing, one.DeletedNull)
		if one.History {
			line += " history"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:digestBytes])
}

// digestBytes keeps heartbeats short: only a few processes are compared.
const digestBytes = 6

// Value returns the text that the column has in the row of values, which are those of the placeholders in the order of the pattern.
func (c Column) Value(values []string) string {
	if c.Placeholder < 0 {
		return c.Constant
	}
	return values[c.Placeholder]
}

// ColumnName returns the column that has the value, for people: "public.posts.likes".
func (m *Mapping) ColumnName() string { return m.Schema + "." + m.Table + "." + m.Set }

// Row returns the row of values, for people: "public.posts (id = 7)". Texts and constants are in quotes. It is not for SQL.
func (m *Mapping) Row(values []string) string {
	var b strings.Builder
	b.WriteString(m.Schema + "." + m.Table + " (")
	for i, c := range m.Where {
		if i > 0 {
			b.WriteString(", ")
		}
		value := c.Value(values)
		if c.Placeholder < 0 || m.Pattern.placeholders[c.Placeholder].Type == Text {
			value = "'" + strings.ReplaceAll(value, "'", "''") + "'"
		}
		b.WriteString(c.Name + " = " + value)
	}
	b.WriteString(")")
	return b.String()
}

// Prefix returns the literal at the start of the pattern. All keys of the mapping begin with it, so counters can be listed by it. It is
// empty if the pattern begins with a placeholder.
func (m *Mapping) Prefix() string { return m.Pattern.first() }
