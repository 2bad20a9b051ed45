package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	coalesceKeys  = 100
	coalesceTime  = 10 * time.Second
	coalesceBatch = 1000 // operations in each of a thousand batches, one every 10 ms
)

// coalesce sends a million increments on 100 keys evenly over 10 s, and counts the rows that Postgres wrote for them, from
// Postgres's statistics.
func coalesce(ctx context.Context, b *bench) error {
	stage, err := b.prepared(ctx, world.Present, "coalesce", coalesceKeys)
	if err != nil {
		return err
	}
	before, err := rowsWritten(ctx, stage)
	if err != nil {
		return err
	}
	sys, err := start(ctx, stage)
	if err != nil {
		return err
	}
	took, err := sendEvenly(ctx, sys.api.URL)
	if err != nil {
		return err
	}
	if took > coalesceTime+time.Second {
		return fmt.Errorf("a million increments took %v: this machine is too slow to send them in %v", took, coalesceTime)
	}
	if err := stage.Drained(ctx, drainPatience); err != nil {
		return err
	}
	if err := b.settle(ctx, "coalesce", sys, report.Count{Load: million}, 0); err != nil {
		return err
	}
	if err := stage.StopAll(); err != nil {
		return err
	}
	after, err := rowsWritten(ctx, stage)
	if err != nil {
		return err
	}
	b.note("coalesce/rows", float64(after-before))
	return nil
}

// rowsWritten is the number of rows inserted or updated since the statistics began. A Postgres backend may report its work only
// when it ends, so this waits until nothing else is connected to the stage's database.
func rowsWritten(ctx context.Context, stage *world.Stage) (rows int64, err error) {
	err = world.Await(ctx, time.Minute, "postgres's processes to end", func(ctx context.Context) (bool, error) {
		const query = `
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()`
		var connected int
		err := stage.DB.QueryRowContext(ctx, query).Scan(&connected)
		return connected == 0, err
	})
	if err != nil {
		return 0, err
	}
	const query = `SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relname = 'counters'`
	if err := stage.DB.QueryRowContext(ctx, query).Scan(&rows); err != nil {
		return 0, fmt.Errorf("count rows written: %w", err)
	}
	return rows, nil
}

// sendEvenly sends the batches when they are due, and returns how long that took.
func sendEvenly(ctx context.Context, api string) (time.Duration, error) {
	const batches = million / coalesceBatch
	body := incrementsOfFew()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	began := time.Now()
	for i := range batches {
		due := time.NewTimer(time.Until(began.Add(coalesceTime * time.Duration(i) / batches)))
		select {
		case <-ctx.Done():
			due.Stop()
			return 0, errors.Join(ctx.Err(), group.Wait())
		case <-due.C:
		}
		group.Go(func() error { return postBatch(ctx, api, body, "") })
	}
	err := group.Wait()
	return time.Since(began), err
}

// incrementsOfFew is a batch in which each of the keys is incremented ten times.
func incrementsOfFew() []byte {
	var operations []byte
	for i := range coalesceBatch / coalesceKeys {
		if i > 0 {
			operations = append(operations, ',')
		}
		one := increments(0, 1, coalesceKeys)
		operations = append(operations, one[len(`{"operations":[`):len(one)-len(`]}`)]...)
	}
	return append(append([]byte(`{"operations":[`), operations...), `]}`...)
}
