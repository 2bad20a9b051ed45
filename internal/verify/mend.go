package verify

import (
	"context"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// group is what one call mends.
type group struct {
	shard counter.Shard
	how   cache.Repairing
}

// confirm counts differences, and mends those that can be if it is asked to.
func (r *run) confirm(ctx context.Context, confirmed []finding) error {
	groups := make(map[group][]finding)
	for _, f := range confirmed {
		how := f.class.mending()
		if !r.Repair || how == "" {
			r.differs(f.difference(), false)
			continue
		}
		g := group{shard: r.Cache.Shard(f.seen.Key), how: how}
		groups[g] = append(groups[g], f)
	}
	if len(groups) == 0 {
		return nil
	}
	backlog, err := r.Cache.Backlog(ctx) // fails where it is not of all shards
	if err != nil {
		return err
	}
	// An api that finds MaxDirty dirty keys refuses writes: the half of it is left to them.
	room := r.MaxDirty/2 - backlog.Dirty - backlog.Dead
	for g, found := range groups {
		if g.how == cache.MarkAgain {
			if room -= int64(len(found)); room < 0 {
				r.report.Held += int64(len(found))
				for _, f := range found {
					r.differs(f.difference(), false)
				}
				continue
			}
		}
		if err := r.mend(ctx, g, found); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) mend(ctx context.Context, g group, found []finding) error {
	entries := make([]cache.Inspected, len(found))
	for i, f := range found {
		entries[i] = f.seen
	}
	done, err := r.Cache.Repair(ctx, g.shard, g.how, entries)
	if err != nil {
		return err
	}
	for i, f := range found {
		if done[i] {
			r.differs(f.difference(), true)
		} else {
			r.report.Counts[Unsettled]++ // written since
		}
	}
	return nil
}

func (r *run) differs(d Difference, mended bool) {
	d.Mended = mended
	r.report.Counts[d.Class]++
	r.report.Differences++
	if mended {
		r.report.Mended[d.Class]++
	} else {
		r.report.Unmended++
	}
	if len(r.report.Examples) < r.Examples {
		r.report.Examples = append(r.report.Examples, d)
	}
}

func (f finding) difference() Difference {
	d := Difference{Key: string(f.seen.Key), Class: f.class}
	if !f.seen.Corrupt && !f.seen.Missing {
		d.Redis = &State{Value: f.seen.Value, Version: f.seen.Version, Deleted: f.seen.Deleted}
	}
	if f.row != nil {
		d.Postgres = &State{Value: f.row.Value, Version: f.row.Version, Deleted: f.row.Deleted}
	}
	return d
}
