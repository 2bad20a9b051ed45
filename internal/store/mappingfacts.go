package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/lib/pq"
	"github.com/lib/pq/oid"
)

// mappedTable are the facts about the table of a mapping. Quoted names can be used in SQL.
type mappedTable struct {
	SchemaExists bool    `db:"schema_exists"`
	OID          oid.Oid `db:"oid"`  // 0: there is no such relation
	Kind         string  `db:"kind"` // pg_class.relkind
	Inherited    bool    `db:"inherited"`
	MayUse       bool    `db:"may_use"` // the role has USAGE on the schema
	Quoted       string  `db:"quoted"`
	QuotedSchema string  `db:"quoted_schema"`
	Role         string  `db:"role"` // quoted
}

// mappedTableSQL has one row for an existing schema, whether the relation exists or not. A partition inherits from its table too, but the
// unique indexes of a partitioned table cover its partitions.
const mappedTableSQL = `
SELECT true AS schema_exists, coalesce(c.oid, 0) AS oid, coalesce(c.relkind::text, '') AS kind,
       coalesce(c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = c.oid), false) AS inherited,
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS may_use,
       pg_catalog.format('%I.%I', n.nspname, $2::text) AS quoted,
       pg_catalog.quote_ident(n.nspname) AS quoted_schema, pg_catalog.quote_ident(current_user) AS role
FROM pg_catalog.pg_namespace n LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = $2
WHERE n.nspname = $1`

func (s *Store) mappedTable(ctx context.Context, schema, name string) (mappedTable, error) {
	var table mappedTable
	err := s.db.GetContext(ctx, &table, mappedTableSQL, schema, name)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return table, err
}

// mappedColumn are the facts about a column.
type mappedColumn struct {
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
SELECT a.attname AS name, pg_catalog.quote_ident(a.attname) AS quoted, a.atttypid AS type_oid, a.atttypmod AS modifier,
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
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped`

// mappedColumns returns the columns of a table by name.
func (s *Store) mappedColumns(ctx context.Context, table oid.Oid) (map[string]mappedColumn, error) {
	var all []mappedColumn
	if err := s.db.SelectContext(ctx, &all, mappedColumnsSQL, table); err != nil {
		return nil, err
	}
	columns := make(map[string]mappedColumn, len(all))
	for _, column := range all {
		columns[column.Name] = column
	}
	return columns, nil
}

// roundsIntegers reports whether the column is a numeric with a negative scale, which PostgreSQL 15 introduced. The last 11 bits of the
// modifier, less 4, are the scale: see numeric_typmod_scale in
// https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/utils/adt/numeric.c
func (c mappedColumn) roundsIntegers() bool {
	return c.TypeOID == oid.T_numeric && c.Modifier >= 4 && (c.Modifier-4)&0x400 != 0
}

// uniqueIndexesSQL returns the key columns of each unique index that makes rows unique by columns alone, at once and for the whole table.
const uniqueIndexesSQL = `
SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k (number, position)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
             WHERE k.position <= i.indnkeyatts)
FROM pg_catalog.pg_index i
WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indisready AND i.indislive AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL`

func (s *Store) uniqueIndexes(ctx context.Context, table oid.Oid) ([][]string, error) {
	var all []pq.StringArray
	if err := s.db.SelectContext(ctx, &all, uniqueIndexesSQL, table); err != nil {
		return nil, err
	}
	indexes := make([][]string, len(all))
	for i, columns := range all {
		indexes[i] = columns
	}
	return indexes, nil
}
