package mapping

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
	all []*Mapping
}

// All returns the mappings in the order of the file. The caller must not change them.
func (m *Mappings) All() []*Mapping {
	if m == nil {
		return nil
	}
	return m.all
}
