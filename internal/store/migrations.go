package store

import (
	"context"
	"fmt"
	"path"
	"time"
)

// Migration is a migration of afterwrite.
type Migration struct {
	Name    string
	Applied time.Time // zero: pending
}

// appliedSQL reads when each version was last applied. goose's table has a row for each run of a migration, so it is short. Its
// timestamps have no time zone; they are in the time zone of the session that wrote them.
const appliedSQL = `
SELECT version_id AS version, max(tstamp) AT TIME ZONE current_setting('TimeZone') AS at
FROM {schema}.counters_migrations WHERE is_applied GROUP BY version_id`

// Migrations returns all migrations of afterwrite in order, with the time when the database got them. It only reads, so it works on a
// standby too. On a database that was never migrated, all are pending.
func (s *Store) Migrations(ctx context.Context) ([]Migration, error) {
	var all []Migration
	err := s.guard(ctx, "list the migrations", func(ctx context.Context) error {
		provider, err := newProvider(s.db.DB, s.schema)
		if err != nil {
			return err
		}
		var exists bool
		if err := s.db.GetContext(ctx, &exists, "SELECT to_regclass($1) IS NOT NULL", qualified(s.schema, tableVersions)); err != nil {
			return err
		}
		var applied []struct {
			Version int64     `db:"version"`
			At      time.Time `db:"at"`
		}
		if exists {
			if err := s.db.SelectContext(ctx, &applied, s.sql.applied); err != nil {
				return fmt.Errorf("read the versions: %w", err)
			}
		}
		all = nil
		for _, source := range provider.ListSources() {
			m := Migration{Name: path.Base(source.Path)}
			for _, a := range applied {
				if a.Version == source.Version {
					m.Applied = a.At
				}
			}
			all = append(all, m)
		}
		return nil
	})
	return all, err
}

// PendingMigrations returns the number of migrations that the database lacks.
func (s *Store) PendingMigrations(ctx context.Context) (pending int, err error) {
	all, err := s.Migrations(ctx)
	for _, m := range all {
		if m.Applied.IsZero() {
			pending++
		}
	}
	return pending, err
}
