package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/afterwrite/afterwrite/proof/bench/load"
	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

const (
	newKeys = 2 * million
	// A client writes bystanderKeys keys during the drain, with bystanderPause between its writes.
	bystanderKeys  = 100
	bystanderPause = 10 * time.Millisecond
)

// newAfterwrite measures the drain of new keys with an unknown base: the workers look for the row of each key, and find none. Meanwhile
// a client writes other keys. The duration of its slowest write shows how long scripts block Redis.
func newAfterwrite(ctx context.Context, b *bench) error {
	const name = "new/afterwrite"
	sys, client, err := b.withNewKeys(ctx)
	if err != nil {
		return err
	}
	began, err := sys.beginDrain(ctx)
	if err != nil {
		return err
	}
	var drained drained
	slowest, err := client.during(ctx, func(ctx context.Context) (err error) {
		drained, err = sys.endDrain(ctx, began, bystanderKeys) // the client keeps its keys dirty
		return err
	})
	if err != nil {
		return err
	}
	if err := sys.stage.Drained(ctx, drainPatience); err != nil { // includes the client's last writes
		return err
	}
	if err := b.settle(ctx, name, sys, report.Count{Load: newKeys + client.written}, newKeys+bystanderKeys); err != nil {
		return err
	}
	b.note(name+"/drain", drained.rate)
	b.note(name+"/slowest", slowest.Seconds()*1000)
	// Remove the keys, which would make the next rewrite of the append-only file long.
	if err := sys.stage.StopAll(); err != nil {
		return err
	}
	return sys.stage.Reset(ctx, 0)
}

// withNewKeys starts an api, writes the new keys, and creates a client with warm keys. No worker runs yet.
func (b *bench) withNewKeys(ctx context.Context) (*system, *bystander, error) {
	stage, err := b.stage(ctx, world.StageOptions{Name: "new", Large: true})
	if err != nil {
		return nil, nil, err
	}
	if err := stage.Reset(ctx, 0); err != nil {
		return nil, nil, err
	}
	sys, err := on(ctx, stage, drainWorkers)
	if err != nil {
		return nil, nil, err
	}
	if err := sys.startAPI(ctx, roomy); err != nil {
		return nil, nil, err
	}
	// Without values in the answers, the api does not read cold keys from Postgres.
	if err := fill(ctx, sys.api.URL, 1, newKeys, "return=minimal"); err != nil {
		return nil, nil, err
	}
	client := &bystander{api: sys.api.URL}
	for range bystanderKeys {
		if _, err := client.write(ctx); err != nil {
			return nil, nil, err
		}
	}
	return sys, client, nil
}

// bystander is a client that writes its own keys in turn, over one connection.
type bystander struct {
	api     string
	written int64
}

// write increments the next key, and returns the duration of the request.
func (c *bystander) write(ctx context.Context) (time.Duration, error) {
	key := fmt.Sprintf("bystander:%010d", c.written%bystanderKeys)
	began := time.Now()
	err := postIncrement(ctx, c.api, key)
	if err == nil {
		c.written++
	}
	return time.Since(began), err
}

// during calls do, writes until do has returned, and returns the duration of the slowest write.
func (c *bystander) during(ctx context.Context, do func(context.Context) error) (slowest time.Duration, err error) {
	group, ctx := errgroup.WithContext(ctx)
	done := make(chan struct{})
	group.Go(func() error {
		defer close(done)
		return do(ctx)
	})
	group.Go(func() error {
		for {
			select {
			case <-done:
				return nil
			case <-time.After(bystanderPause):
			}
			took, err := c.write(ctx)
			if err != nil {
				return err
			}
			slowest = max(slowest, took)
		}
	})
	err = group.Wait()
	return slowest, err
}

// newPGBench measures how fast Postgres alone inserts the same number of rows, in batches of the same size as a flush.
func newPGBench(ctx context.Context, b *bench) error {
	stage, err := b.stage(ctx, world.StageOptions{Name: "pgbench-insert"})
	if err != nil {
		return err
	}
	if err := stage.Reset(ctx, 0); err != nil {
		return err
	}
	rate, err := load.PGBenchInsert(ctx, stage.DatabaseURL, pgbenchRows, pgbenchClients, newKeys/pgbenchRows)
	if err != nil {
		return err
	}
	b.note("new/pgbench/rate", rate)
	return stage.Reset(ctx, 0)
}
