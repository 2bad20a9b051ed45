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

// moveLockTimeout bounds the wait for statements on the tables that are under way. New ones queue up behind it meanwhile.
const moveLockTimeout = 5 * time.Second

// prepare makes the schema ready for migrations: it creates it, and the table of versions. It does nothing where that is there.
//
// Versions before 0.2 kept their tables in public, and noted their migrations in public.goose_db_version, which other programs use
// too. That table is only read here. The tables are moved into DefaultSchema, and views take their place, through which processes of
// the older version go on reading and writing the same rows; or they stay, where the schema is public. done says so.
func prepare(ctx context.Context, db *sql.DB, schema string) (done []string, err error) {
	tx, err := sqlx.NewDb(db, "postgres").BeginTxx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	p := preparation{tx: tx, schema: schema}
	if ready, err := p.look(ctx); err != nil || ready {
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
	occupied  string // a relation of the schema that has the name of one of our tables; "": there is none
	goose     bool   // public.goose_db_version is there
	older     int64  // the migrations that the tables in public have; 0: they are not ours, or there are none
	unnoted   bool   // the tables in public look like ours, but goose_db_version does not say so
}

const lookSQL = `
SELECT to_regnamespace(quote_ident($1)) IS NOT NULL AS has_schema,
       coalesce(bool_or(relname = 'counters_migrations'), false) AS ready,
       coalesce(min(relname) FILTER (WHERE relname IN ('counters', 'counters_actions')), '') AS occupied
FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = $1 AND relkind IN ('r', 'p', 'v', 'm', 'f')`

// look finds out what there is. ready means that nothing is to be done.
func (p *preparation) look(ctx context.Context) (ready bool, err error) {
	if err := p.tx.QueryRowContext(ctx, lookSQL, p.schema).Scan(&p.hasSchema, &ready, &p.occupied); err != nil || ready {
		return ready, err
	}
	if p.older, err = p.shape(ctx); err != nil || p.older == 0 {
		return false, err
	}
	noted := p.goose
	if noted {
		// goose deletes the row of a migration that it takes back.
		err := p.tx.GetContext(ctx, &noted, `SELECT count(DISTINCT version_id) = $1 FROM public.goose_db_version
			WHERE is_applied AND version_id BETWEEN 1 AND $1`, p.older)
		if err != nil {
			return false, fmt.Errorf("read public.goose_db_version: %w", err)
		}
	}
	p.unnoted = !noted
	return false, nil
}

// shapeSQL counts what is ours of public.counters: an owner may have added columns and constraints. With a table of versions beside it,
// it is of this version, where AFTERWRITE_SCHEMA is public.
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

// shape returns which of the first three migrations the tables in public look like; 0: not like ours.
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

// check refuses what would mix up tables of different owners, or lose sight of counters.
func (p *preparation) check() error {
	older := p.older > 0 && !p.unnoted
	switch {
	case p.occupied != "" && (p.schema != publicSchema || !older):
		return fmt.Errorf("schema %s has a %q that is not of this program, or was copied without its %s: "+
			"set AFTERWRITE_SCHEMA to another schema", p.schema, p.occupied, tableVersions)
	case p.older > 0 && p.unnoted:
		return errors.New("public.counters looks like the table of an older version, but public.goose_db_version has no rows of it: " +
			"restore them, or rename public.counters if it is not needed")
	case older && p.schema != publicSchema && p.schema != DefaultSchema:
		return fmt.Errorf("schema public has the tables of an older version: run `afterwrite migrate` with AFTERWRITE_SCHEMA=%s, "+
			"which moves them there, or with AFTERWRITE_SCHEMA=public, which leaves them, before another installation gets schema %s",
			DefaultSchema, p.schema)
	}
	return nil
}

// createVersions creates the table of versions, and the schema if there is none.
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

// createSchema asks first: CREATE SCHEMA IF NOT EXISTS needs the right to create one even where it exists.
func (p *preparation) createSchema(ctx context.Context) error {
	if p.hasSchema {
		return nil
	}
	p.hasSchema = true
	_, err := p.tx.ExecContext(ctx, "CREATE SCHEMA "+pq.QuoteIdentifier(p.schema))
	return err
}

// grantsSQL makes statements that give the roles which may use a table in public the same rights on the view that replaces it, and
// the use of the schema. The owner is among them: another role may be the one that migrates.
const grantsSQL = `
SELECT DISTINCT grants.statement
FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a,
     format('%s', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END) role,
     LATERAL (VALUES (format('GRANT %s ON public.%I TO %s', a.privilege_type, c.relname, role)),
                     (format('GRANT USAGE ON SCHEMA %I TO %s', $1::text, role))) grants (statement)
WHERE c.oid = ANY ($2::regclass[]) AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
ORDER BY 1`

// move moves the tables of an older version out of public, in one transaction that holds them locked.
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
			return fmt.Errorf("another transaction holds the tables in public locked; nothing was changed, try again: %w", err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}
