package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/bench/report"
	"github.com/afterwrite/afterwrite/bench/world"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// memory measures by how much Redis grows with 100,000 keys of 20 bytes, each in turn: plain strings, clean entries, dirty
// entries with their marks, and the same with the tasks that the api sends for them.
func memory(ctx context.Context, b *bench) error {
	stage, err := b.stage(ctx, "memory")
	if err != nil {
		return err
	}
	plain, err := grown(ctx, stage, func() error { return stage.WarmPlain(ctx, "", space) })
	if err != nil {
		return err
	}
	clean, err := grown(ctx, stage, func() error { return stage.Warm(ctx, space) })
	if err != nil {
		return err
	}
	dirty, err := grown(ctx, stage, func() error { return errors.Join(stage.Warm(ctx, space), makeDirty(ctx, stage)) })
	if err != nil {
		return err
	}
	hinted, err := grown(ctx, stage, func() error { return withHints(ctx, stage) })
	if err != nil {
		return err
	}
	b.note("memory/string", plain)
	b.note("memory/clean", clean)
	b.note("memory/dirty", dirty)
	b.note("memory/hinted", hinted)
	// What was dirty was never to be flushed, so nothing is to add up but the keys.
	keys, err := stage.Dirty(ctx)
	if err != nil {
		return err
	}
	return b.check("memory", report.Count{Stored: keys, Acknowledged: -1, Load: space})
}

// grown is the growth of Redis, in bytes for each key, when fill is called on an empty one.
func grown(ctx context.Context, stage *world.Stage, fill func() error) (float64, error) {
	if err := stage.Reset(ctx, space); err != nil {
		return 0, err
	}
	before, err := stage.DatasetBytes(ctx)
	if err != nil {
		return 0, err
	}
	if err := fill(); err != nil {
		return 0, err
	}
	// The table of keys has two sizes while it grows, and is done when nobody writes for a moment.
	if err := stage.Settle(ctx); err != nil {
		return 0, err
	}
	last := 0.0
	err = stage.Await(ctx, time.Minute, "redis to come to rest", func(ctx context.Context) (bool, error) {
		now, err := stage.DatasetBytes(ctx)
		same := now == last
		last = now
		return same, err
	})
	return (last - before) / space, err
}

// makeDirty increments all keys, as the api does, but without its tasks for Asynq.
func makeDirty(ctx context.Context, stage *world.Stage) error {
	writer := stage.Cache.NewWriter(func() bool { return true })
	defer writer.Close()
	const together = 1000
	for from := 0; from < space; from += together {
		writes := make([]cache.Write, together)
		for i := range writes {
			writes[i].Operation = counter.Operation{Key: world.Key(from + i), Kind: counter.Increment, Amount: 1}
		}
		for _, outcome := range writer.Do(ctx, writes) {
			if outcome.Err != nil || outcome.Cold {
				return fmt.Errorf("make dirty: %w", errors.Join(outcome.Err, errSum))
			}
		}
	}
	return nil
}

// withHints has a real api do it.
func withHints(ctx context.Context, stage *world.Stage) error {
	if err := stage.Warm(ctx, space); err != nil {
		return err
	}
	api, err := stage.Start(ctx, "api")
	if err != nil {
		return err
	}
	return errors.Join(fill(ctx, api.URL, 1, space), stage.StopAll()) // which sends the tasks that wait
}
