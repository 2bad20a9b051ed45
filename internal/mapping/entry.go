package mapping

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

const (
	// maxNameBytes is the longest name in Postgres. It is also the bound of the names of mappings and placeholders.
	maxNameBytes = 63
	// maxWhere bounds the columns of where. An index has at most 32.
	maxWhere = 16
)

// entry is one mapping of the file, and what is wrong with it.
type entry struct {
	m        *Mapping
	number   int // from 1, in the order of the file
	node     *yaml.Node
	fields   map[string]*yaml.Node
	problems []error
}

// fieldNames are the known fields.
var fieldNames = []string{"name", "key", "table", "where", "set", "missing", "deleted", "history"}

// parseEntry reads one mapping of the file.
func parseEntry(number int, node *yaml.Node) *entry {
	e := &entry{m: &Mapping{Missing: Ignore}, number: number, node: node, fields: map[string]*yaml.Node{}}
	if node.Kind != yaml.MappingNode {
		e.failf(node, "it is not a mapping: write its fields as \"name: post-likes\"")
		return e
	}
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i]
		if key.Value == "name" {
			e.readName(resolve(node.Content[i+1])) // first, so that problems begin with it
		}
	}
	for i := 0; i < len(node.Content); i += 2 {
		key := node.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(fieldNames, key.Value):
			e.failf(key, "unknown field %q: the fields are %s", key.Value, strings.Join(fieldNames, ", "))
		case e.fields[key.Value] != nil:
			e.failf(key, "the field %s is there twice: remove one", key.Value)
		default:
			e.fields[key.Value] = resolve(node.Content[i+1])
		}
	}
	if e.fields["name"] == nil {
		e.failf(node, "name is missing: add one, as in \"name: post-likes\"")
	}
	e.readKey()
	e.readTable()
	e.readSet()
	e.readWhere()
	e.readMissing()
	e.readDeleted()
	e.readHistory()
	return e
}

// failf adds a problem at the line of node.
func (e *entry) failf(node *yaml.Node, format string, args ...any) {
	who := e.m.Name
	if who == "" {
		who = fmt.Sprintf("mapping %d", e.number)
	}
	e.problems = append(e.problems, fmt.Errorf("%s (line %d): %s", who, node.Line, fmt.Sprintf(format, args...)))
}

func (e *entry) readName(node *yaml.Node) {
	name := node.Value
	valid := func(r rune) bool { return 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' }
	if node.Kind != yaml.ScalarNode || name == "" || len(name) > maxNameBytes ||
		strings.ContainsFunc(name, func(r rune) bool { return !valid(r) }) {
		e.failf(node, "name: %q is not valid: use 1 to %d of a-z, 0-9 and -", name, maxNameBytes)
		return
	}
	e.m.Name = name
}

// text returns the text of a field that has to be there.
func (e *entry) text(field, example string) (string, *yaml.Node, bool) {
	node := e.fields[field]
	switch {
	case node == nil:
		e.failf(e.node, "%s is missing: add it, as in %s", field, example)
	case node.Kind != yaml.ScalarNode:
		e.failf(node, "%s is not a text: put it in quotes, as in %s", field, example)
	case node.Value == "" || isNull(node):
		e.failf(node, "%s is empty: set it, as in %s", field, example)
	default:
		return node.Value, node, true
	}
	return "", nil, false
}

func (e *entry) readKey() {
	text, node, ok := e.text("key", `key: "post:{id:int}:likes"`)
	if !ok {
		return
	}
	p, err := ParsePattern(text)
	if err != nil {
		e.failf(node, "key: %s", err)
		return
	}
	e.m.Pattern = p
}

func (e *entry) readTable() {
	text, node, ok := e.text("table", "table: public.posts")
	if !ok {
		return
	}
	schema, table, found := strings.Cut(text, ".")
	if !found {
		schema, table = "public", text
	}
	if strings.Contains(table, ".") || !isIdentifier(schema) || !isIdentifier(table) {
		e.failf(node, "table: %q is not valid: write it as schema.table, without quotes, each of at most %d bytes", text, maxNameBytes)
		return
	}
	e.m.Schema, e.m.Table = schema, table
}

func (e *entry) readSet() {
	text, node, ok := e.text("set", "set: likes")
	if !ok {
		return
	}
	if !isIdentifier(text) {
		e.failf(node, "set: %q is not the name of a column: use at most %d bytes", text, maxNameBytes)
		return
	}
	e.m.Set = text
}

func (e *entry) readMissing() {
	node := e.fields["missing"]
	if node == nil {
		return
	}
	switch m := Missing(node.Value); m {
	case Ignore, Insert, Dead:
		e.m.Missing = m
	default:
		e.failf(node, "missing: %q is not known: use ignore, insert or dead", node.Value)
	}
}

func (e *entry) readDeleted() {
	node := e.fields["deleted"]
	switch {
	case node == nil:
	case isNull(node) && node.Value != "": // an empty field is more likely an oversight
		e.m.DeletedNull = true
	case node.Kind != yaml.ScalarNode || node.Value != "0":
		e.failf(node, "deleted: %q is not known: use 0 or null", node.Value)
	}
}

func (e *entry) readHistory() {
	node := e.fields["history"]
	switch {
	case node == nil:
	case node.Kind == yaml.ScalarNode && node.Value == "true":
		e.m.History = true
	case node.Kind != yaml.ScalarNode || node.Value != "false":
		e.failf(node, "history: %q is not known: use true or false", node.Value)
	}
}

func (e *entry) readWhere() {
	node := e.fields["where"]
	const example = `where: {id: "{id}"}`
	switch {
	case node == nil:
		e.failf(e.node, "where is missing: add the columns that find the row, as in %s", example)
		return
	case node.Kind != yaml.MappingNode || len(node.Content) == 0:
		e.failf(node, "where has no columns: name those that find the row, as in %s", example)
		return
	case len(node.Content)/2 > maxWhere:
		e.failf(node, "where has more than %d columns: use fewer", maxWhere)
		return
	}
	before, uses := len(e.problems), make([]int, len(e.m.Pattern.placeholders))
	for i := 0; i < len(node.Content); i += 2 {
		e.readColumn(node.Content[i], resolve(node.Content[i+1]), uses)
	}
	for i, n := range uses {
		switch name := e.m.Pattern.placeholders[i].Name; {
		case n == 0 && len(e.problems) == before: // else a column that is wrong may be the one that uses it
			e.failf(node, "where does not use the placeholder %s, so two keys would mean one row: add a column that is \"{%s}\"",
				name, name)
		case n > 1:
			e.failf(node, "where uses the placeholder %s %d times: use it once", name, n)
		}
	}
	slices.SortFunc(e.m.Where, func(a, b Column) int { return cmp.Compare(a.Name, b.Name) })
}

// readColumn reads one column of where, and counts the use of its placeholder.
func (e *entry) readColumn(key, value *yaml.Node, uses []int) {
	c := Column{Name: key.Value, Placeholder: -1, Constant: value.Value}
	switch {
	case key.Kind != yaml.ScalarNode || !isIdentifier(c.Name):
		e.failf(key, "where: %q is not the name of a column: use at most %d bytes", c.Name, maxNameBytes)
		return
	case slices.ContainsFunc(e.m.Where, func(o Column) bool { return o.Name == c.Name }):
		e.failf(key, "where has the column %q twice: remove one", c.Name)
		return
	case c.Name == e.m.Set:
		e.failf(key, "where has the column %q, which set writes: find the row by another column", c.Name)
	case value.Kind != yaml.ScalarNode:
		e.failf(value, "where: %q is not a text: put it in quotes, as in {id: \"{id}\"}", c.Name)
	case isNull(value):
		e.failf(value, "where: %q is null, which equals nothing: use a placeholder or a constant", c.Name)
	case strings.ContainsFunc(c.Constant, unicode.IsControl):
		e.failf(value, "where: %q has a control character: remove it", c.Name)
	case strings.ContainsAny(c.Constant, "{}"):
		c.Placeholder = e.placeholder(value, c.Name)
		if c.Placeholder >= 0 {
			c.Constant = ""
			uses[c.Placeholder]++
		}
	}
	e.m.Where = append(e.m.Where, c)
}

// placeholder returns the index of the placeholder that is the value of a column of where.
func (e *entry) placeholder(value *yaml.Node, column string) int {
	name, ok := strings.CutPrefix(value.Value, "{")
	name, ok2 := strings.CutSuffix(name, "}")
	if !ok || !ok2 || strings.ContainsAny(name, "{}") {
		e.failf(value, "where: %q is %q: use one placeholder alone, as in \"{id}\", or a constant without braces", column, value.Value)
		return -1
	}
	i := slices.IndexFunc(e.m.Pattern.placeholders, func(h Placeholder) bool { return h.Name == name })
	if i < 0 && e.m.Pattern.text != "" { // else the problem is the key
		e.failf(value, "where: %q uses the placeholder %q, which the key does not have: add it to the key, or use another", column, name)
	}
	return i
}

// isIdentifier reports whether s can be a name in Postgres.
func isIdentifier(s string) bool {
	return s != "" && len(s) <= maxNameBytes && !strings.ContainsFunc(s, unicode.IsControl)
}
