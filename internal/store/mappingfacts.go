package store

import (
	"context"

	"github.com/lib/pq"
	"github.com/lib/pq/oid"
)

// mappingFacts are the facts about the tables of all mappings. Reading them takes three statements, whatever the number of mappings, since
// a process at start waits for them.
type mappingFacts struct {
	tables  map[tableName]mappedTable
	columns map[oid.Oid]map[string]mappedColumn // by table, then by name
	indexes map[oid.Oid][][]string              // the columns of the unique indexes, by table
}

type tableName struct {
	Schema string `db:"schema"`
	Table  string `db:"name"`
}

// mappedTable are the facts about the table of a mapping. Quoted names can be used in SQL.
type mappedTable struct {
	tableName

	SchemaExists bool    `db:"schema_exists"`
	OID          oid.Oid `db:"oid"`  // 0: there is no such relation
	Kind         string  `db:"kind"` // pg_class.relkind
	Inherited    bool    `db:"inherited"`
	MayUse       bool    `db:"may_use"` // the role has USAGE on the schema
	Quoted       string  `db:"quoted"`
	QuotedSchema string  `db:"quoted_schema"`
	Role         string  `db:"role"` // quoted
}

// mappedTablesSQL has one row for each wanted table, whether it exists or not. A partition inherits from its table too, but the unique
// indexes of a partitioned table cover its partitions.
const mappedTablesSQL = `
SELECT w.schema, w.name, n.oid IS NOT NULL AS schema_exists, coalesce(c.oid, 0) AS oid, coalesce(c.relkind::text, '') AS kind,
       coalesce(c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = c.oid), false) AS inherited,
       coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false) AS may_use,
       pg_catalog.format('%I.%I', w.schema, w.name) AS quoted, pg_catalog.quote_ident(w.schema) AS quoted_schema,
       pg_catalog.quote_ident(current_user) AS role
FROM unnest($1::text[], $2::text[]) w (schema, name)
LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name`

// mappingFacts reads the facts about the tables of the Store's mappings.
func (s *Store) mappingFacts(ctx context.Context) (mappingFacts, error) {
	facts := mappingFacts{
		tables: make(map[tableName]mappedTable), columns: make(map[oid.Oid]map[string]mappedColumn), indexes: make(map[oid.Oid][][]string),
	}
	all := s.mappings.All()
	schemas, names := make([]string, len(all)), make([]string, len(all))
	for i, m := range all {
		schemas[i], names[i] = m.Schema, m.Table
	}
	var tables []mappedTable
	if err := s.db.SelectContext(ctx, &tables, mappedTablesSQL, pq.Array(schemas), pq.Array(names)); err != nil {
		return facts, err
	}
	oids := make([]int64, len(tables))
	for i, table := range tables {
		facts.tables[table.tableName] = table
		oids[i] = int64(table.OID)
	}

	var columns []mappedColumn
	if err := s.db.SelectContext(ctx, &columns, mappedColumnsSQL, pq.Array(oids)); err != nil {
		return facts, err
	}
	for _, column := range columns {
		if facts.columns[column.Table] == nil {
			facts.columns[column.Table] = make(map[string]mappedColumn)
		}
		facts.columns[column.Table][column.Name] = column
	}

	var indexes []uniqueIndex
	if err := s.db.SelectContext(ctx, &indexes, uniqueIndexesSQL, pq.Array(oids)); err != nil {
		return facts, err
	}
	for _, index := range indexes {
		facts.indexes[index.Table] = append(facts.indexes[index.Table], index.Columns)
	}
	return facts, nil
}

// mappedColumn are the facts about a column.
type mappedColumn struct {
	Table    oid.Oid `db:"attrelid"`
	Name     string  `db:"name"`
	Quoted   string  `db:"quoted"`
	TypeOID  oid.Oid `db:"type_oid"`
	Type     string  `db:"type"`      // for people
	CastType string  `db:"cast_type"` // for a cast
	Enum     bool    `db:"enum"`
	Modifier int32   `db:"modifier"` // pg_attribute.atttypmod

	NotNull          bool `db:"not_null"`
	HasDefault       bool `db:"has_default"`
	Generated        bool `db:"generated"`
	Identity         bool `db:"identity"`
	AlwaysIdentity   bool `db:"always_identity"`
	Nondeterministic bool `db:"nondeterministic"` // its collation makes different texts equal

	MaySelect bool           `db:"may_select"`
	MayUpdate bool           `db:"may_update"`
	MayInsert bool           `db:"may_insert"`
	Sequences pq.StringArray `db:"sequences"` // of its default, without USAGE for the role; quoted
}

// mappedColumnsSQL builds the name of the type for a cast from the catalog, because format_type depends on search_path. The part in
// parentheses, such as a length, does not. CASE guarantees that has_sequence_privilege, which fails for tables, gets only sequences.
const mappedColumnsSQL = `
SELECT a.attrelid, a.attname AS name, pg_catalog.quote_ident(a.attname) AS quoted, a.atttypid AS type_oid, a.atttypmod AS modifier,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, t.typtype = 'e' AS enum,
       pg_catalog.format('%I.%I', n.nspname, t.typname) || CASE WHEN a.atttypmod < 0 THEN ''
           ELSE coalesce(pg_catalog.substring(pg_catalog.format_type(a.atttypid, a.atttypmod), '\(.*\)'), '') END AS cast_type,
       a.attnotnull AS not_null, a.atthasdef AS has_default, a.attgenerated <> '' AS generated, a.attidentity <> '' AS identity,
       a.attidentity = 'a' AS always_identity, coalesce(NOT l.collisdeterministic, false) AS nondeterministic,
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS may_select,
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE') AS may_update,
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'INSERT') AS may_insert,
       ARRAY(SELECT pg_catalog.format('%I.%I', sn.nspname, s.relname)
             FROM pg_catalog.pg_attrdef d
             JOIN pg_catalog.pg_depend p ON p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
                                        AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
             JOIN pg_catalog.pg_class s ON s.oid = p.refobjid
             JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
             WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum
               AND CASE WHEN s.relkind = 'S' THEN NOT pg_catalog.has_sequence_privilege(s.oid, 'USAGE, UPDATE') END) AS sequences
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped`

// roundsIntegers reports whether the column is a numeric with a negative scale, which PostgreSQL 15 introduced. The last 11 bits of the
// modifier, less 4, are the scale: see numeric_typmod_scale in
// https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/utils/adt/numeric.c
func (c mappedColumn) roundsIntegers() bool {
	return c.TypeOID == oid.T_numeric && c.Modifier >= 4 && (c.Modifier-4)&0x400 != 0
}

type uniqueIndex struct {
	Table   oid.Oid        `db:"indrelid"`
	Columns pq.StringArray `db:"columns"`
}

// uniqueIndexesSQL returns the key columns of each unique index that makes rows unique by columns alone, at once and for the whole table.
const uniqueIndexesSQL = `
SELECT i.indrelid, ARRAY(
    SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k (number, position)
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE k.position <= i.indnkeyatts) AS columns
FROM pg_catalog.pg_index i
WHERE i.indrelid = ANY ($1::oid[]) AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL`
