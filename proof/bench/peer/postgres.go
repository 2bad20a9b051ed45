package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/lib/pq"
)

// upsertSQL adds to a row. That is right in whatever order writes arrive, and needs no read before it.
const upsertSQL = `
INSERT INTO counters (key, value, version, updated_at) VALUES ($1, $2, 1, now())
ON CONFLICT (key) DO UPDATE
SET value = counters.value + EXCLUDED.value, version = counters.version + 1, deleted_at = NULL, updated_at = EXCLUDED.updated_at
RETURNING value, version`

// postgres adds to rows of counters, over a pool of $POSTGRES_CONNS connections to $DATABASE_URL.
type postgres struct {
	db     *sql.DB
	upsert *sql.Stmt
}

// openPostgres connects once and prepares the statement; each further connection prepares it when it is first used.
func openPostgres(ctx context.Context) (*postgres, error) {
	config, err := pq.NewConfig(env("DATABASE_URL"))
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	connector, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	db := sql.OpenDB(connector)
	conns := postgresConns()
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns) // the default of 2 would make new connections all the time
	db.SetConnMaxIdleTime(5 * time.Minute)
	upsert, err := db.PrepareContext(ctx, upsertSQL)
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("prepare the upsert: %w", err)
	}
	return &postgres{db: db, upsert: upsert}, nil
}

// add adds to a counter's row and returns the row as it is then. It blocks until Postgres has committed. It cannot be cancelled:
// for that, lib/pq would start a goroutine for each call.
func (p *postgres) add(ctx context.Context, key string, by int64) (value, version int64, err error) {
	err = p.upsert.QueryRowContext(context.WithoutCancel(ctx), key, by).Scan(&value, &version)
	return value, version, err
}

func (p *postgres) close() error { return p.db.Close() }
