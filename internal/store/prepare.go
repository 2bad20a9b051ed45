package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/pressly/goose/v3/database"
)

// moveLockTimeout bounds the wait for running transactions on the tables. New statements have to wait meanwhile.
const moveLockTimeout = 5 * time.Second

// prepare creates the schema and the version table for the migrations. It does nothing if the version table exists.
//
// Versions before 0.2 kept their tables in public, and their migrations in public.goose_db_version, which other programs use too and
// which prepare only reads. prepare moves their tables into DefaultSchema and leaves views in public, so that processes of the older
// version keep reading and writing the same rows. If schema is public, the tables stay there. done describes a move.
func prepare(ctx context.Context, db *sql.DB, schema string) (done []string, err error) {
	tx, err := sqlx.NewDb(db, "postgres").BeginTxx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	p := preparation{tx: tx, schema: schema}
	if ready, err := p.inspect(ctx); err != nil || ready {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if p.older > 0 && schema != publicSchema {
		if err := p.move(ctx); err != nil {
			return nil, err
		}
		done = append(done, "the move of the tables from schema public to "+schema)
	}
	if err := p.createVersions(ctx); err != nil {
		return nil, err
	}
	return done, tx.Commit()
}

// preparation is one call of prepare.
type preparation struct {
	tx     *sqlx.Tx
	schema string

	hasSchema bool
	occupied  string // a relation in the schema with the name of one of our tables; "": none
	goose     bool   // public.goose_db_version exists
	older     int64  // the number of migrations that the tables in public have; 0: there are none, or they are not ours
	unnoted   bool   // the tables in public look like ours, but goose_db_version lacks their migrations
}

const inspectSQL = `
SELECT to_regnamespace(quote_ident($1)) IS NOT NULL AS has_schema,
       coalesce(bool_or(relname = 'counters_migrations'), false) AS ready,
       coalesce(min(relname) FILTER (WHERE relname IN ('counters', 'counters_actions')), '') AS occupied
FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'f')`

// inspect fills p from the catalogs. ready reports that the schema is prepared.
func (p *preparation) inspect(ctx context.Context) (ready bool, err error) {
	if err := p.tx.QueryRowContext(ctx, inspectSQL, p.schema).Scan(&p.hasSchema, &ready, &p.occupied); err != nil || ready {
		return ready, err
	}
	if p.older, err = p.shape(ctx); err != nil || p.older == 0 {
		return false, err
	}
	noted := p.goose
	if noted {
		// goose deletes the row of a migration that it reverts.
		err := p.tx.GetContext(ctx, &noted, `SELECT count(DISTINCT version_id) = $1 FROM public.goose_db_version
			WHERE is_applied AND version_id BETWEEN 1 AND $1`, p.older)
		if err != nil {
			return false, fmt.Errorf("read public.goose_db_version: %w", err)
		}
	}
	p.unnoted = !noted
	return false, nil
}

// shapeSQL counts our columns and constraints of public.counters; its owner may have added others. If public has our version table,
// public.counters belongs to this version with AFTERWRITE_SCHEMA=public, and there is no row.
const shapeSQL = `
SELECT (SELECT count(*) FROM pg_attribute WHERE attrelid = c.oid AND NOT attisdropped AND (attname, atttypid) IN (
            ('key', 'text'::regtype), ('value', 'bigint'::regtype), ('version', 'bigint'::regtype),
            ('deleted_at', 'timestamptz'::regtype), ('updated_at', 'timestamptz'::regtype),
            ('lineage', 'bigint'::regtype), ('base', 'bigint'::regtype))) AS columns,
       (SELECT count(*) FROM pg_constraint WHERE conrelid = c.oid
            AND conname IN ('counters_pkey', 'counters_version_not_negative')) AS constraints,
       EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = 'counters_actions') AS actions,
       EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = 'goose_db_version') AS goose
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE nspname = 'public' AND relname = 'counters' AND relkind = 'r'
      AND NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = 'counters_migrations')`

// shape returns how many migrations the tables in public seem to have, 1 to 3, or 0 if they do not look like ours.
func (p *preparation) shape(ctx context.Context) (int64, error) {
	var columns, constraints int
	var actions bool
	err := p.tx.QueryRowContext(ctx, shapeSQL).Scan(&columns, &constraints, &actions, &p.goose)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, nil
	case err != nil:
		return 0, err
	case constraints == 2 && columns == 7 && actions:
		return 3, nil
	case constraints == 2 && columns == 7:
		return 2, nil
	case constraints == 2 && columns == 5:
		return 1, nil
	}
	return 0, nil
}

// check returns an error if the schema has tables of another program, or if counters would be left behind in public.
func (p *preparation) check() error {
	older := p.older > 0 && !p.unnoted
	switch {
	case p.occupied != "" && (p.schema != publicSchema || !older):
		return fmt.Errorf("schema %s has a table %q that belongs to another program, or was copied without %s: "+
			"set AFTERWRITE_SCHEMA to another schema", p.schema, p.occupied, tableVersions)
	case p.older > 0 && p.unnoted:
		return errors.New("public.counters looks like the table of an older version, but public.goose_db_version lacks its versions: " +
			"restore them, or rename public.counters if it is not needed")
	case older && p.schema != publicSchema && p.schema != DefaultSchema:
		return fmt.Errorf("schema public has the tables of an older version: before you use schema %s, run `afterwrite migrate` with "+
			"AFTERWRITE_SCHEMA=%s, which moves them there, or with AFTERWRITE_SCHEMA=public, which leaves them in public",
			p.schema, DefaultSchema)
	}
	return nil
}

// createVersions creates the version table, and the schema if necessary.
func (p *preparation) createVersions(ctx context.Context) error {
	if err := p.createSchema(ctx); err != nil {
		return err
	}
	versions, err := database.NewStore(database.DialectPostgres, qualified(p.schema, tableVersions))
	if err != nil {
		return err
	}
	if err := versions.CreateVersionTable(ctx, p.tx); err != nil {
		return err
	}
	for version := range p.older + 1 {
		if err := versions.Insert(ctx, p.tx, database.InsertRequest{Version: version}); err != nil {
			return err
		}
	}
	return nil
}

// createSchema creates the schema if it does not exist. CREATE SCHEMA IF NOT EXISTS would need the right to create schemas even if it
// exists.
func (p *preparation) createSchema(ctx context.Context) error {
	if p.hasSchema {
		return nil
	}
	p.hasSchema = true
	_, err := p.tx.ExecContext(ctx, "CREATE SCHEMA "+pq.QuoteIdentifier(p.schema))
	return err
}

// grantsSQL returns GRANT statements. Roles with rights on a table in public get the same rights on the view that replaces it, and
// USAGE on the schema. The owner needs them too, because another role may run the migration.
const grantsSQL = `
SELECT DISTINCT grants.statement
FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a,
     format('%s', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END) role,
     LATERAL (VALUES (format('GRANT %s ON public.%I TO %s', a.privilege_type, c.relname, role)),
                     (format('GRANT USAGE ON SCHEMA %I TO %s', $1::text, role))) grants (statement)
WHERE c.oid = ANY ($2::regclass[]) AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
ORDER BY 1`

// move moves the tables of an older version from public to the schema. It holds their locks until the end of the transaction.
func (p *preparation) move(ctx context.Context) error {
	tables := []string{tableCounters}
	if p.older >= 3 {
		tables = append(tables, tableActions)
	}
	names := make(pq.StringArray, len(tables))
	for i, table := range tables {
		names[i] = qualified(publicSchema, table)
	}
	var grants []string
	if err := p.tx.SelectContext(ctx, &grants, grantsSQL, p.schema, names); err != nil {
		return fmt.Errorf("read the rights on the tables in public: %w", err)
	}
	if err := p.createSchema(ctx); err != nil {
		return err
	}
	statements := []string{fmt.Sprintf("SET LOCAL lock_timeout = %d", moveLockTimeout.Milliseconds())}
	for i, table := range tables {
		statements = append(statements,
			"ALTER TABLE "+names[i]+" SET SCHEMA "+pq.QuoteIdentifier(p.schema),
			"CREATE VIEW "+names[i]+" AS TABLE "+qualified(p.schema, table))
	}
	for _, statement := range slices.Concat(statements, grants) {
		_, err := p.tx.ExecContext(ctx, statement)
		if IsLocked(err) {
			return fmt.Errorf("another transaction locks the tables in public; nothing was changed, try again: %w", err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}
