package operate

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// repairGroup identifies the entries that one call repairs.
type repairGroup struct {
	shard counter.Shard
	how   cache.Repairing
}

// confirm counts confirmed differences, and with Repair repairs those that are safe to repair.
func (v *verification) confirm(ctx context.Context, confirmed []finding) error {
	groups := make(map[repairGroup][]finding)
	for _, f := range confirmed {
		how := f.class.repair()
		if !v.Repair || how == "" {
			v.count(f.difference(), false)
			continue
		}
		g := repairGroup{shard: v.cache.Shard(f.entry.Key), how: how}
		groups[g] = append(groups[g], f)
	}
	if len(groups) == 0 {
		return nil
	}
	backlog, err := v.cache.Backlog(ctx) // fails unless it can read all shards
	if err != nil {
		return err
	}
	// The api refuses writes beyond MaxDirty dirty keys, so a repair uses only half of that number.
	room := v.MaxDirty/2 - backlog.Dirty - backlog.Dead
	for g, found := range groups {
		if g.how == cache.MarkAgain {
			if room -= int64(len(found)); room < 0 {
				v.report.Held += int64(len(found))
				for _, f := range found {
					v.count(f.difference(), false)
				}
				continue
			}
		}
		if err := v.repair(ctx, g, found); err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) repair(ctx context.Context, g repairGroup, found []finding) error {
	entries := make([]cache.Inspected, len(found))
	for i, f := range found {
		entries[i] = f.entry
	}
	done, err := v.cache.Repair(ctx, g.shard, g.how, entries)
	if err != nil {
		return err
	}
	for i, f := range found {
		if done[i] {
			v.count(f.difference(), true)
		} else {
			v.report.Counts[ClassUnsettled]++ // written meanwhile
		}
	}
	return nil
}

// count adds a difference to the report.
func (v *verification) count(d Difference, repaired bool) {
	d.Repaired = repaired
	v.report.Counts[d.Class]++
	v.report.Differences++
	if repaired {
		v.report.Repaired[d.Class]++
	} else {
		v.report.Unrepaired++
	}
	if len(v.report.Examples) < v.Examples {
		v.report.Examples = append(v.report.Examples, d)
	}
}

func (f finding) difference() Difference {
	d := Difference{Key: string(f.entry.Key), Class: f.class}
	if !f.entry.Corrupt && !f.entry.Missing {
		d.Redis = &Version{Value: f.entry.Value, Version: f.entry.Version, Deleted: f.entry.Deleted}
	}
	if f.row != nil {
		d.Postgres = &Version{Value: f.row.Value, Version: f.row.Version, Deleted: f.row.Deleted}
	}
	return d
}
