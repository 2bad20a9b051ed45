package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/lib/pq"

	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	// probeEvery is the interval of probes and of checks for their rows, and so the resolution of a lag.
	probeEvery = 10 * time.Millisecond
	// probePatience is the time limit for the rows of the last probes.
	probePatience = 30 * time.Second
)

// probes measures the sync lag: it increments keys of its own over HTTP, each once, and polls Postgres for their rows.
type probes struct {
	api   string
	stage *world.Stage
	lags  []time.Duration // times from an answer until the row was found
}

// run sends probes for the duration, and returns when it has found all rows.
func (p *probes) run(ctx context.Context, duration time.Duration) error {
	// Use one connection for all checks: a new one costs Postgres some milliseconds of CPU time, which would slow the load.
	conn, err := p.stage.DB.Conn(ctx)
	if err != nil {
		return fmt.Errorf("read the rows of probes: %w", err)
	}
	defer func() { _ = conn.Close() }()
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	ends := time.Now().Add(duration)
	sent := make(map[string]time.Time)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		now := time.Now()
		switch {
		case now.Before(ends):
			key := fmt.Sprintf("probe:%012d", i)
			if err := postIncrement(ctx, p.api, key); err != nil {
				return err
			}
			sent[key] = time.Now()
		case len(sent) == 0:
			return nil
		case now.After(ends.Add(probePatience)):
			return fmt.Errorf("%d probes have no row after %v", len(sent), probePatience)
		}
		if err := p.collect(ctx, conn, sent); err != nil {
			return err
		}
	}
}

// collect notes the lag of each probe whose row is in Postgres, and removes it from sent.
func (p *probes) collect(ctx context.Context, conn *sql.Conn, sent map[string]time.Time) error {
	keys := make([]string, 0, len(sent))
	for key := range sent {
		keys = append(keys, key)
	}
	rows, err := conn.QueryContext(ctx, `SELECT key FROM counters WHERE key = ANY($1)`, pq.Array(keys))
	if err != nil {
		return fmt.Errorf("read the rows of probes: %w", err)
	}
	defer rows.Close()
	now := time.Now()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return fmt.Errorf("read the rows of probes: %w", err)
		}
		p.lags = append(p.lags, now.Sub(sent[key]))
		delete(sent, key)
	}
	return rows.Err()
}
