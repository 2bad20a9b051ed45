package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/lib/pq"
)

// grantsNeededSQL returns GRANT statements for the rights that the current role lacks on existing tables. It reads only catalogs, which
// every role may read.
const grantsNeededSQL = `
SELECT format('GRANT USAGE ON SCHEMA %I TO %I', nspname, current_user)
FROM pg_namespace WHERE nspname = $1 AND NOT has_schema_privilege(oid, 'USAGE')
UNION ALL
SELECT format('GRANT %s ON %I.%I TO %I', rights, nspname, relname, current_user)
FROM (VALUES ('counters', 'SELECT, INSERT, UPDATE, DELETE', true), ('counters_actions', 'SELECT, INSERT, UPDATE, DELETE', true),
             ('counters_migrations', 'SELECT', true), ('operations', 'SELECT, INSERT', $2),
             ('operations_checkpoints', 'SELECT, DELETE', $2)) wanted (name, rights, used)
JOIN pg_class c ON relname = name AND used
JOIN pg_namespace n ON n.oid = relnamespace
WHERE nspname = $1 AND EXISTS (
    SELECT FROM unnest(string_to_array(rights, ', ')) wanted_right WHERE NOT has_table_privilege(c.oid, wanted_right))
ORDER BY 1`

// MissingGrants returns GRANT statements for the rights that processes need and that this Store's role lacks. It returns none if there
// are no tables. The owner of the tables can run them.
func (s *Store) MissingGrants(ctx context.Context) ([]string, error) {
	var grants []string
	err := s.guard(ctx, "read the rights of the role", func(ctx context.Context) error {
		grants = nil
		return s.db.SelectContext(ctx, &grants, grantsNeededSQL, s.schema, s.recording)
	})
	return grants, err
}

// explainDenied adds the missing right to an error of Migrate.
func explainDenied(ctx context.Context, db *sql.DB, schema string, err error) error {
	if sqlState(err) != stateInsufficientPrivilege {
		return err
	}
	var role, database string
	var exists, create bool
	const query = `SELECT current_user, current_database(), oid IS NOT NULL, coalesce(has_schema_privilege(oid, 'CREATE'), false)
		FROM (SELECT to_regnamespace(quote_ident($1))::oid AS oid) s`
	if db.QueryRowContext(ctx, query, schema).Scan(&role, &database, &exists, &create) != nil {
		return err
	}
	role = pq.QuoteIdentifier(role)
	switch {
	case !exists:
		return fmt.Errorf("the role may not create the schema %s: run GRANT CREATE ON DATABASE %s TO %s, or set AFTERWRITE_SCHEMA=%s: %w",
			schema, pq.QuoteIdentifier(database), role, publicSchema, err)
	case !create:
		return fmt.Errorf("the role may not create tables in the schema %s: run GRANT USAGE, CREATE ON SCHEMA %s TO %s: %w",
			schema, pq.QuoteIdentifier(schema), role, err)
	default:
		return fmt.Errorf("the role does not own the tables: run `afterwrite migrate` as their owner: %w", err)
	}
}

// stateInsufficientPrivilege is the SQLSTATE insufficient_privilege.
const stateInsufficientPrivilege = "42501"
