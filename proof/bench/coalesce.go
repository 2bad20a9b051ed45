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
	coalesceBatch = 1000 // increments in a batch; one of the thousand batches is due every 10 ms
)

// coalesce sends a million increments on 100 keys evenly over 10 s. It reads the number of rows written for them from Postgres's
// statistics.
func coalesce(ctx context.Context, b *bench) error {
	stage, err := b.prepared(ctx, world.Current, "coalesce", coalesceKeys)
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
		return fmt.Errorf("a million increments took %v, but must take %v: this machine is too slow", took, coalesceTime)
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

// rowsWritten returns the number of rows inserted or updated, from Postgres's statistics. A backend may report its work only when it
// ends, so rowsWritten first waits until no other client is connected to the stage's database.
func rowsWritten(ctx context.Context, stage *world.Stage) (rows int64, err error) {
	err = world.Await(ctx, time.Minute, "the other connections to postgres to close", func(ctx context.Context) (bool, error) {
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
		return 0, fmt.Errorf("read the number of rows written: %w", err)
	}
	return rows, nil
}

// sendEvenly sends the batches when they are due, and returns the total time.
func sendEvenly(ctx context.Context, api string) (time.Duration, error) {
	const batches = million / coalesceBatch
	body := increments(coalesceBatch, func(i int) int { return i % coalesceKeys })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	began := time.Now()
	for i := range batches {
		due := began.Add(coalesceTime * time.Duration(i) / batches)
		if err := world.Sleep(ctx, time.Until(due)); err != nil {
			return 0, errors.Join(err, group.Wait())
		}
		group.Go(func() error { return post(ctx, api+"/v1/batch", body, "") })
	}
	err := group.Wait()
	return time.Since(began), err
}
