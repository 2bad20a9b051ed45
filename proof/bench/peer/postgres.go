package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/lib/pq"
)

// upsertSQL increments a row. It is correct for any order of writes, and needs no read before it.
const upsertSQL = `
INSERT INTO counters (key, value, version, updated_at) VALUES ($1, $2, 1, now())
ON CONFLICT (key) DO UPDATE
SET value = counters.value + EXCLUDED.value, version = counters.version + 1, deleted_at = NULL, updated_at = EXCLUDED.updated_at
RETURNING value, version`

// updateSQL increments a column of an application's row.
const updateSQL = `UPDATE posts SET likes = likes + $2 WHERE name = substr($1, length('counter:') + 1) RETURNING likes, 1`

// postgres increments rows of the table counters, with a pool of connections to $DATABASE_URL.
type postgres struct {
	db     *sql.DB
	upsert *sql.Stmt
}

// openPostgres connects and prepares the statement. Further connections prepare it on their first use.
func openPostgres(ctx context.Context, statement string) (*postgres, error) {
	connector, err := pq.NewConnector(env("DATABASE_URL"))
	if err != nil {
		return nil, fmt.Errorf("open postgres: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(postgresConns)
	db.SetMaxIdleConns(postgresConns) // with the default of 2, connections would be opened all the time
	db.SetConnMaxIdleTime(5 * time.Minute)
	upsert, err := db.PrepareContext(ctx, statement)
	if err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("prepare the statement: %w", err)
	}
	return &postgres{db: db, upsert: upsert}, nil
}

// add increments a counter's row, and returns its new value and version. It ignores the cancellation of ctx, because lib/pq would
// start a goroutine for each cancellable call.
func (p *postgres) add(ctx context.Context, key string, by int64) (value, version int64, err error) {
	err = p.upsert.QueryRowContext(context.WithoutCancel(ctx), key, by).Scan(&value, &version)
	return value, version, err
}

func (p *postgres) close() error { return p.db.Close() }
