package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/store"
)

// maxRebaseTries bounds how often the bases of entries are read again because a key became clean meanwhile.
const maxRebaseTries = 3

var errBaseOverflow = errors.New("the value in postgres and the increments accepted while it was away do not add up to a " +
	"signed 64-bit integer")

var errUnsettled = errors.New("each time that bases were read, another flush was completed meanwhile")

// rebase adds the base from Postgres to entries whose base is unknown, and returns the rebased entries. It adds entries whose sum would
// overflow to done.refused.
func (f *Flusher) rebase(ctx context.Context, s cache.Snapshot, unknown []cache.Entry, done *flushed) ([]cache.Entry, error) {
	var out []cache.Entry
	for range maxRebaseTries {
		if len(unknown) == 0 {
			return out, nil
		}
		known, stale, err := f.rebaseOnce(ctx, s, unknown, done)
		out = append(out, known...)
		if err != nil || len(stale) == 0 {
			return out, err
		}
		if s, err = f.cache.Read(ctx, s.Shard, stale); err == nil {
			err = f.cache.ReadRecords(ctx, &s)
		}
		if err != nil {
			return out, err
		}
		unknown = unknown[:0]
		for _, e := range s.Entries {
			switch {
			case e.Missing, e.Epoch == 0: // gone or clean by now
			case e.Corrupt:
				done.refused = append(done.refused, refusal{e.Row, errCorrupt})
			case e.BaseUnknown:
				unknown = append(unknown, e)
			default:
				out = append(out, e)
			}
		}
	}
	return out, errUnsettled
}

// rebaseOnce returns the rebased entries, and the keys to read again: their token was stale, another process has rebased them, or they
// have records, which were renumbered.
func (f *Flusher) rebaseOnce(ctx context.Context, s cache.Snapshot, unknown []cache.Entry, done *flushed) (
	known []cache.Entry, stale []counter.Key, err error,
) {
	keys := make([]counter.Key, len(unknown))
	for i := range unknown {
		keys[i] = unknown[i].Key
	}
	rows, err := f.store.Read(ctx, keys)
	if unread := store.Unread(err); len(unread) > 0 {
		if keys, err = f.deferUnread(ctx, s.Shard, unknown, unread, err, done); len(keys) == 0 {
			return nil, nil, err
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read bases: %w", err)
	}
	bases := make([]cache.Base, len(keys))
	for i, key := range keys {
		row, found := rows[key]
		bases[i] = cache.Base{Key: key, Row: row, Found: found, Token: s.Token}
	}
	answers, known, err := f.cache.Rebase(ctx, bases)
	if err != nil {
		return nil, nil, err
	}
	known = slices.DeleteFunc(known, func(e cache.Entry) bool { return e.Recorded }) // step: read again
	has := make(map[counter.Key]bool, len(known))
	for i := range known {
		has[known[i].Key] = true
	}
	for i, key := range keys {
		switch {
		case answers[i] == cache.BaseOverflow:
			done.refused = append(done.refused, refusal{counter.Row{Key: key}, errBaseOverflow})
		case !has[key]:
			stale = append(stale, key)
		}
	}
	return known, stale, nil
}

// deferUnread defers the entries whose mapped columns cannot be read, and returns the keys of the others.
func (f *Flusher) deferUnread(
	ctx context.Context, shard counter.Shard, unknown []cache.Entry, unread map[counter.Key]bool, reason error, done *flushed,
) (keys []counter.Key, err error) {
	for _, failed := range store.MappingErrors(reason) {
		if !errors.Is(failed, store.ErrBusy) {
			f.metrics.breaks(failed.Mapping, failed)
		}
	}
	blocked := batch{shard: shard}
	for i := range unknown {
		if unread[unknown[i].Key] {
			blocked.entries = append(blocked.entries, unknown[i])
		} else {
			keys = append(keys, unknown[i].Key)
		}
	}
	deferred, err := f.deferEntries(ctx, blocked, brokenMapping)
	done.add(&deferred)
	return keys, err
}
