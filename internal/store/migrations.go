package store

import (
	"context"
	"database/sql"
	"fmt"
	"path"
	"time"

	"github.com/pressly/goose/v3"
)

// Migration is one migration of this program.
type Migration struct {
	Name    string
	Applied time.Time // zero: it is pending
}

// appliedSQL reads when each version was last applied, in goose's table, which has a row for each run and is a few rows long.
// Its times are those of the sessions' time zone, without saying which.
const appliedSQL = `SELECT version_id, max(tstamp) AT TIME ZONE current_setting('TimeZone') FROM ` + goose.DefaultTablename +
	` WHERE is_applied GROUP BY version_id`

// Migrations returns every migration of this program in order, with when the database got it. It only reads.
func (s *Store) Migrations(ctx context.Context) ([]Migration, error) {
	var all []Migration
	err := s.guard(ctx, "list the migrations", func(ctx context.Context) error {
		provider, err := newProvider(s.db.DB)
		if err != nil {
			return err
		}
		done, err := appliedVersions(ctx, s.db.DB)
		if err != nil {
			return err
		}
		when, err := appliedTimes(ctx, s.db.DB, len(done) > 0)
		if err != nil {
			return err
		}
		all = nil
		for _, source := range provider.ListSources() {
			m := Migration{Name: path.Base(source.Path)}
			if done[source.Version] {
				m.Applied = when[source.Version]
			}
			all = append(all, m)
		}
		return nil
	})
	return all, err
}

// appliedTimes reads goose's table if it is there.
func appliedTimes(ctx context.Context, db *sql.DB, there bool) (when map[int64]time.Time, err error) {
	when = make(map[int64]time.Time)
	if !there {
		return when, nil
	}
	rows, err := db.QueryContext(ctx, appliedSQL)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // its error is that of Err
	for rows.Next() {
		var version int64
		var at time.Time
		if err := rows.Scan(&version, &at); err != nil {
			return nil, fmt.Errorf("read a migration: %w", err)
		}
		when[version] = at
	}
	return when, rows.Err()
}
