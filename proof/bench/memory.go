package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/proof/bench/report"
	"github.com/afterwrite/afterwrite/proof/world"
)

// memory measures how much memory Redis uses for 100,000 keys of 20 bytes: plain strings, clean counters, and dirty counters with and
// without the tasks in Asynq's queues.
func memory(ctx context.Context, b *bench) error {
	stage, err := b.stage(ctx, world.StageOptions{Name: "memory"})
	if err != nil {
		return err
	}
	const plain = "string"
	sizes := make(map[string]float64)
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"empty", nothing},
		{plain, func() error { return stage.WarmPlain(ctx, "", space) }},
		{"clean", func() error { return errors.Join(writeAndFlush(ctx, stage, space), withoutQueues(ctx, stage)) }},
		{"hinted", func() error { return b.makeDirty(ctx, stage) }},
		{"dirty", func() error { return withoutQueues(ctx, stage) }},
	} {
		if err := step.do(); err != nil {
			return err
		}
		if sizes[step.name], err = atRest(ctx, stage); err != nil {
			return err
		}
	}
	for _, name := range []string{plain, "clean", "hinted", "dirty"} {
		b.note("memory/"+name, (sizes[name]-sizes["empty"])/space)
	}
	return stage.Reset(ctx, 0)
}

// atRest returns the memory that Redis uses, without its script cache, when the memory no longer changes.
func atRest(ctx context.Context, stage *world.Stage) (float64, error) {
	if err := stage.Redis.ScriptFlush(ctx).Err(); err != nil {
		return 0, fmt.Errorf("flush the script cache: %w", err)
	}
	if err := stage.Settle(ctx); err != nil {
		return 0, err
	}
	// While the table of keys grows, Redis keeps two tables. It finishes shortly after the last write.
	last := 0.0
	err := world.Await(ctx, time.Minute, "a stable memory size", func(ctx context.Context) (bool, error) {
		now, err := stage.DataBytes(ctx)
		same := now == last
		last = now
		return same, err
	})
	return last, err
}

// withoutQueues deletes Asynq's keys. No process of afterwrite may be running.
func withoutQueues(ctx context.Context, stage *world.Stage) error {
	keys, err := stage.Redis.Keys(ctx, "asynq:*").Result()
	if err != nil {
		return fmt.Errorf("list asynq's keys: %w", err)
	}
	if len(keys) == 0 {
		return nil
	}
	if err := stage.Redis.Del(ctx, keys...).Err(); err != nil {
		return fmt.Errorf("delete asynq's keys: %w", err)
	}
	return nil
}

// makeDirty writes every counter once more without a worker. The api sends its pending tasks when it stops.
func (b *bench) makeDirty(ctx context.Context, stage *world.Stage) error {
	api, err := stage.Start(ctx, "api")
	if err != nil {
		return err
	}
	if err := fill(ctx, api.URL, 1, space, ""); err != nil {
		return err
	}
	dirty, err := stage.Dirty(ctx)
	if err != nil {
		return err
	}
	if err := b.check("memory", report.Count{Stored: dirty, Acknowledged: -1, Load: space}); err != nil {
		return err
	}
	return stage.StopAll()
}
