package store

import (
	"context"
	"time"
)

// Info is what a Postgres says about itself.
type Info struct {
	Version        string    `db:"version"`         // "15.8 (Debian 15.8-0+deb12u1)"
	VersionNumber  int       `db:"version_number"`  // 150008
	Now            time.Time `db:"now"`             // its clock, to the microsecond
	InRecovery     bool      `db:"in_recovery"`     // a standby
	ReadOnly       bool      `db:"read_only"`       // writes would be refused
	MaxConnections int       `db:"max_connections"` // of all its clients together
}

// infoSQL reads no table. clock_timestamp() is the moment of the call, not of the transaction's start.
const infoSQL = `
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::int AS version_number,
       clock_timestamp() AS now,
       pg_is_in_recovery() AS in_recovery,
       current_setting('transaction_read_only')::boolean AS read_only,
       current_setting('max_connections')::int AS max_connections`

// Info asks Postgres about itself.
func (s *Store) Info(ctx context.Context) (Info, error) {
	var info Info
	err := s.guard(ctx, "ask postgres about itself", func(ctx context.Context) error {
		return s.db.GetContext(ctx, &info, infoSQL)
	})
	return info, err
}
