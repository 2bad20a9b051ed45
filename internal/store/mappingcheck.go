package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lib/pq"
	"github.com/lib/pq/oid"

	"github.com/afterwrite/afterwrite/internal/mapping"
)

// MappingProblem is a reason why a mapping cannot be used with the tables that Postgres has.
type MappingProblem struct {
	Mapping string // the name of the mapping
	Problem string // what is wrong, in one line
	Fix     string // what to change, in one line
}

// String returns the problem in one line.
func (p MappingProblem) String() string {
	return "mapping " + p.Mapping + ": " + p.Problem + ": " + p.Fix
}

// CheckMappings compares Options.Mappings with the tables, the columns, the unique indexes and the rights of the role, in the order of the
// file. It returns every problem, or none if all mappings can be used. It reads only catalogs, which every role may read, so it takes no
// locks on the tables. It blocks at most until ctx is done, or for Options.StatementTimeout plus two seconds.
func (s *Store) CheckMappings(ctx context.Context) ([]MappingProblem, error) {
	var problems []MappingProblem
	err := s.guard(ctx, "check the mappings", func(ctx context.Context) error {
		problems = nil
		if len(s.mappings.All()) == 0 {
			return nil
		}
		facts, err := s.mappingFacts(ctx)
		if err != nil {
			return err
		}
		for _, m := range s.mappings.All() {
			table := facts.tables[tableName{m.Schema, m.Table}]
			check := mappingCheck{
				Mapping: m, store: s, table: table, columns: facts.columns[table.OID], indexes: facts.indexes[table.OID],
			}
			if err := check.run(ctx); err != nil {
				return fmt.Errorf("mapping %s: %w", m.Name, err)
			}
			problems = append(problems, check.problems...)
		}
		return nil
	})
	return problems, err
}

// mappingCheck is the check of one mapping.
type mappingCheck struct {
	*mapping.Mapping

	store    *Store
	table    mappedTable
	columns  map[string]mappedColumn
	indexes  [][]string // the columns of the unique indexes
	problems []MappingProblem
}

func (c *mappingCheck) refuse(fix, problem string, args ...any) {
	c.problems = append(c.problems, MappingProblem{Mapping: c.Name, Problem: oneLine(fmt.Sprintf(problem, args...)), Fix: oneLine(fix)})
}

// oneLine replaces line breaks, which a name or a message of Postgres may have.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }

// run stops at a problem that makes the later checks meaningless.
func (c *mappingCheck) run(ctx context.Context) error {
	if !c.checkTable() || !c.checkColumnsExist() {
		return nil
	}
	c.checkSet()
	for _, column := range c.Where {
		if column.Placeholder >= 0 {
			c.checkPlaceholder(column)
		} else if err := c.checkConstant(ctx, column); err != nil {
			return err
		}
	}
	if c.Missing == mapping.Insert {
		c.checkInsert()
	}
	c.checkRights()
	c.checkIndex()
	return nil
}

// relationKinds describes the relations other than tables, by pg_class.relkind.
var relationKinds = map[string]string{
	"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "c": "a composite type", "i": "an index",
	"I": "an index", "t": "a TOAST table",
}

func (c *mappingCheck) checkTable() bool {
	name := c.Schema + "." + c.Table
	switch t := c.table; {
	case !t.SchemaExists:
		c.refuse("create it, or correct table in the file", "the schema %s does not exist", c.Schema)
	case t.OID == 0:
		c.refuse("create it, or correct table in the file", "the table %s does not exist", name)
	case t.Kind != "r" && t.Kind != "p":
		c.refuse("set table to an ordinary or partitioned table", "%s is %s", name, relationKinds[t.Kind])
	case c.Schema == c.store.schema && slices.Contains([]string{tableCounters, tableActions, tableVersions}, c.Table):
		c.refuse("set table to a table of your own", "%s belongs to afterwrite", name)
	case t.Inherited:
		c.refuse("set table to a table without children, or to a partitioned table",
			"other tables inherit from %s, and its unique indexes do not cover their rows", name)
	default:
		return true
	}
	return false
}

func (c *mappingCheck) checkColumnsExist() bool {
	var missing []string
	for _, name := range c.named() {
		if _, ok := c.columns[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		c.refuse("correct where and set in the file; names are case-sensitive", "the table %s.%s has no column %s",
			c.Schema, c.Table, strings.Join(missing, ", "))
	}
	return len(missing) == 0
}

// named returns the names of the where columns and of the set column.
func (c *mappingCheck) named() []string {
	var names []string
	for _, column := range c.Where {
		names = append(names, column.Name)
	}
	return append(names, c.Set)
}

func (c *mappingCheck) checkSet() {
	column := c.columns[c.Set]
	switch {
	case !slices.Contains([]oid.Oid{oid.T_int2, oid.T_int4, oid.T_int8, oid.T_numeric}, column.TypeOID):
		c.refuse("set must be a column of type smallint, integer, bigint or numeric", "the column %s has the type %s", c.Set, column.Type)
	case column.roundsIntegers():
		c.refuse("use a scale of 0 or more", "the column %s has the type %s, which rounds whole numbers", c.Set, column.Type)
	case column.Generated:
		c.refuse("set must be an ordinary column", "the column %s is generated, so it cannot be written", c.Set)
	case column.AlwaysIdentity:
		c.refuse("set must be an ordinary column", "the column %s is an identity (GENERATED ALWAYS), so it cannot be written", c.Set)
	case column.NotNull && c.DeletedNull:
		c.refuse("remove deleted: null, or drop NOT NULL", "the column %s is NOT NULL, so a delete cannot set NULL", c.Set)
	}
}

// placeholderTypes has the types of a column for each type of placeholder.
var placeholderTypes = map[mapping.Type][]oid.Oid{
	mapping.Int:  {oid.T_int2, oid.T_int4, oid.T_int8},
	mapping.UUID: {oid.T_uuid},
	mapping.Text: {oid.T_text, oid.T_varchar},
	mapping.Date: {oid.T_date},
}

// placeholderTypeNames has the names of these types.
var placeholderTypeNames = map[mapping.Type]string{
	mapping.Int: "smallint, integer or bigint", mapping.UUID: "uuid", mapping.Text: "text or varchar", mapping.Date: "date",
}

func (c *mappingCheck) checkPlaceholder(where mapping.Column) {
	placeholder, column := c.Pattern.Placeholders()[where.Placeholder], c.columns[where.Name]
	if !slices.Contains(placeholderTypes[placeholder.Type], column.TypeOID) {
		c.refuse("use a column of type "+placeholderTypeNames[placeholder.Type]+", or another type of placeholder",
			"the column %s has the type %s, and its placeholder is {%s:%s}", where.Name, column.Type, placeholder.Name, placeholder.Type)
		return
	}
	c.checkCollation(where.Name)
}

// checkCollation refuses columns in which different texts are equal, since one row would then belong to several keys.
func (c *mappingCheck) checkCollation(name string) {
	if c.columns[name].Nondeterministic {
		c.refuse("use a column with a deterministic collation", "the collation of the column %s makes different texts equal", name)
	}
}

// constantTypes are the types of columns that may equal a constant, other than enums. In them, texts that Postgres returns unchanged are
// equal only if they are the same.
var constantTypes = []oid.Oid{oid.T_int2, oid.T_int4, oid.T_int8, oid.T_text, oid.T_varchar, oid.T_bool, oid.T_uuid, oid.T_date}

// checkConstant requires that Postgres returns the constant as it is written. So mappings with different constants mean different rows.
func (c *mappingCheck) checkConstant(ctx context.Context, where mapping.Column) error {
	column := c.columns[where.Name]
	if !column.Enum && !slices.Contains(constantTypes, column.TypeOID) {
		c.refuse("use a column of type smallint, integer, bigint, text, varchar, boolean, uuid, date or an enum",
			"the column %s has the type %s, which cannot be compared with a constant", where.Name, column.Type)
		return nil
	}
	c.checkCollation(where.Name)
	as := "CAST($1::text AS " + column.CastType + ")"
	query := "SELECT CAST(" + as + " AS text)"
	if column.TypeOID == oid.T_date { // its text depends on a setting
		query = "SELECT pg_catalog.to_char(" + as + ", 'YYYY-MM-DD')"
	}
	var canonical string
	err := c.store.db.GetContext(ctx, &canonical, query, where.Constant)
	switch class := Classify(err); {
	case class == Refused, class == Operator: // Operator: the role may not use the type
		c.refuse("correct the constant", "the constant %q is not a value of the type %s of the column %s (%s)",
			where.Constant, column.Type, where.Name, pq.As(err).Message)
	case err != nil:
		return err
	case canonical != where.Constant:
		c.refuse(fmt.Sprintf("write it as %q, or change the type", canonical), "the constant %q is %q in the type %s of the column %s",
			where.Constant, canonical, column.Type, where.Name)
	}
	return nil
}

// checkInsert refuses tables into which a row with only the named columns cannot be inserted.
func (c *mappingCheck) checkInsert() {
	named := c.named()
	var required []string
	for name, column := range c.columns {
		switch {
		case !slices.Contains(named, name):
			if column.NotNull && !column.HasDefault && !column.Identity && !column.Generated {
				required = append(required, name)
			}
		case name != c.Set && (column.Generated || column.AlwaysIdentity):
			c.refuse("use missing: ignore or missing: dead", "missing: insert cannot insert rows, because Postgres generates the column %s",
				name)
		}
	}
	if len(required) > 0 {
		slices.Sort(required)
		c.refuse("give them defaults, or use missing: ignore or missing: dead",
			"missing: insert cannot insert rows, because columns are NOT NULL and have no default: %s", strings.Join(required, ", "))
	}
}

// checkRights refuses if a right is missing, and says which statements grant it.
func (c *mappingCheck) checkRights() {
	var read, update, insert []string
	for _, name := range c.named() {
		column := c.columns[name]
		if !column.MaySelect {
			read = append(read, column.Quoted)
		}
		if name == c.Set && !column.MayUpdate {
			update = append(update, column.Quoted)
		}
		if c.Missing == mapping.Insert && !column.MayInsert {
			insert = append(insert, column.Quoted)
		}
	}
	var rights, grants []string
	for _, right := range []struct {
		name    string
		columns []string
	}{{"SELECT", read}, {"UPDATE", update}, {"INSERT", insert}} {
		if len(right.columns) > 0 {
			rights = append(rights, right.name+" ("+strings.Join(right.columns, ", ")+")")
		}
	}
	if !c.table.MayUse {
		grants = append(grants, "GRANT USAGE ON SCHEMA "+c.table.QuotedSchema+" TO "+c.table.Role)
	}
	if len(rights) > 0 {
		grants = append(grants, "GRANT "+strings.Join(rights, ", ")+" ON "+c.table.Quoted+" TO "+c.table.Role)
	}
	if c.Missing == mapping.Insert {
		grants = append(grants, c.sequenceGrants()...)
	}
	if len(grants) > 0 {
		c.refuse("run as their owner: "+strings.Join(grants, "; "), "the role %s lacks rights on %s", c.table.Role, c.table.Quoted)
	}
}

// sequenceGrants returns the grants for the sequences of the defaults that an INSERT evaluates, such as that of a serial column.
func (c *mappingCheck) sequenceGrants() []string {
	var grants []string
	named := c.named()
	for name, column := range c.columns {
		if slices.Contains(named, name) {
			continue
		}
		for _, sequence := range column.Sequences {
			grants = append(grants, "GRANT USAGE ON SEQUENCE "+sequence+" TO "+c.table.Role)
		}
	}
	slices.Sort(grants)
	return slices.Compact(grants)
}

// checkIndex requires a unique index that makes the row of a key the only one.
func (c *mappingCheck) checkIndex() {
	where, quoted := make([]string, len(c.Where)), make([]string, len(c.Where))
	for i, column := range c.Where {
		where[i], quoted[i] = column.Name, c.columns[column.Name].Quoted
	}
	for _, columns := range c.indexes {
		subset := !slices.ContainsFunc(columns, func(name string) bool { return !slices.Contains(where, name) })
		if subset && (c.Missing != mapping.Insert || len(columns) == len(where)) {
			return
		}
	}
	fix := fmt.Sprintf("run CREATE UNIQUE INDEX ON %s (%s)", c.table.Quoted, strings.Join(quoted, ", "))
	const kinds = "indexes that are partial, deferrable, invalid or on expressions do not count"
	if c.Missing == mapping.Insert {
		c.refuse(fix, "missing: insert needs a unique index on exactly the columns of where (%s)", kinds)
		return
	}
	c.refuse(fix, "no unique index has only columns of where, so a key could have several rows (%s)", kinds)
}
