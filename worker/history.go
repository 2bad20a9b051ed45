package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

const (
	// maxRecords bounds the records of one transaction; cache.ReadRecords bounds those of one counter.
	maxRecords = 10_000

	// maxDropped bounds the partitions that one purge drops. The next drops the rest.
	maxDropped = 30
)

// withinRecords returns how many of the entries have at most maxRecords records together: at least one.
func withinRecords(entries []cache.Entry) int {
	records := 0
	for i := range entries {
		if entries[i].Records == nil {
			continue
		}
		records += len(entries[i].Records.All)
		if records > maxRecords {
			return max(i, 1)
		}
	}
	return len(entries)
}

// upsert writes the rows of a batch, and the records of its counters if it has some.
func (f *Flusher) upsert(ctx context.Context, b batch, rows []counter.Row) (store.Upserted, error) {
	var history store.History
	for i := range b.entries {
		if records := b.entries[i].Records; records != nil {
			if history == nil {
				history = make(store.History)
			}
			history[b.entries[i].Key] = records.All
		}
	}
	if history == nil {
		return f.store.UpsertUnlocked(ctx, rows)
	}
	return f.store.UpsertHistory(ctx, rows, history)
}

// purgeHistory creates the partitions of the next days, if counters have a history, and drops old ones.
func (h *handlers) purgeHistory(ctx context.Context) error {
	if h.history {
		if err := h.store.PrepareHistory(ctx); err != nil {
			return err
		}
	}
	dropped, err := h.store.PurgeHistory(ctx, h.retention, maxDropped)
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	if dropped > 0 {
		h.logger.InfoContext(ctx, "dropped old partitions of operations", "days", dropped, "older_than", h.retention.Round(time.Hour))
	}
	return nil
}
