package local

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// StartStandby copies a running primary into opts.Dir, an empty folder, and starts the copy as its streaming replica. It has the primary's
// password, and fills opts.BinDir and opts.Fsync from it. It blocks like StartPostgres, and returns its errors.
func (p *Postgres) StartStandby(ctx context.Context, opts PostgresOptions) (*Postgres, error) {
	opts.BinDir, opts.Fsync = cmp.Or(opts.BinDir, p.binDir), p.opts.Fsync
	dir, err := makePostgresDir(opts.Dir, p.cred)
	if err != nil {
		return nil, err
	}
	text := []byte(p.password + "\n")
	path := filepath.Join(dir, "password")
	if err := errors.Join(os.WriteFile(path, text, 0o600), give(path, p.cred)); err != nil {
		return nil, notWritable(dir, err)
	}
	args := []string{
		"--pgdata=" + filepath.Join(dir, clusterName), "--dbname=" + p.URL(), "--checkpoint=fast", "--write-recovery-conf",
	}
	if !p.opts.Fsync {
		args = append(args, "--no-sync")
	}
	copying := Program{Path: filepath.Join(p.binDir, "pg_basebackup"), Args: args, Dir: dir, Env: postgresEnv(), cred: p.cred}
	if _, err := copying.Run(ctx); err != nil {
		return nil, fmt.Errorf("copy the primary: %w", err)
	}
	return StartPostgres(ctx, opts)
}

// Promote makes a standby the primary, and blocks until it accepts writes, at most until ctx is done or for 60 s.
func (p *Postgres) Promote(ctx context.Context) error {
	return p.withDatabase(databaseName, func(db *sql.DB) error {
		var promoted bool
		if err := db.QueryRowContext(ctx, "SELECT pg_promote()").Scan(&promoted); err != nil {
			return fmt.Errorf("promote the standby: %w", err)
		}
		if !promoted {
			return errors.New("promote the standby: it is not a primary after 60 s")
		}
		return nil
	})
}
