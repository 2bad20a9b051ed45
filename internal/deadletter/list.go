package deadletter

import (
	"context"
	"slices"
	"time"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// Each calls show with every dead letter, up to 500 at a time and each key once, shard by shard. Keys that become dead, or
// cease to be, meanwhile may be in or not. While Postgres does not answer, its side is StateUnknown, and unread is why. An
// error of show ends it and is returned as it is.
//
// It blocks for three bounded calls for each page, and keeps the keys of one shard in memory.
func (b *Box) Each(ctx context.Context, show func([]Letter) error) (unread, err error) {
	for s := range b.cache.Shards() {
		shard := counter.Shard(s)
		err = b.cache.EachDead(ctx, shard, func(notes []cache.Note) error {
			for part := range slices.Chunk(notes, page) {
				letters, failed, err := b.letters(ctx, part)
				if err != nil {
					return err
				}
				if failed != nil {
					unread = failed
				}
				if err := show(letters); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return unread, err
		}
	}
	return unread, nil
}

// Get returns the dead letter of key, or a *NotDeadError. Where Postgres does not answer, its side is StateUnknown, and
// unread is why. It blocks for three bounded calls.
func (b *Box) Get(ctx context.Context, key counter.Key) (letter Letter, unread, err error) {
	dead, found, err := b.cache.DeadLetter(ctx, key)
	if err != nil {
		return Letter{}, nil, err
	}
	if !found {
		return Letter{}, nil, &NotDeadError{Key: key}
	}
	letters, unread, err := b.letters(ctx, []cache.Note{{Key: key, Dead: dead}})
	if err != nil {
		return Letter{}, nil, err
	}
	return letters[0], unread, nil
}

// letters adds to at most a page of notes what both sides have. Where ctx has a deadline, Postgres gets half of the time
// that is left, so that there is something to show, and the time for it, while Postgres hangs.
func (b *Box) letters(ctx context.Context, notes []cache.Note) (letters []Letter, unread, err error) {
	keys := make([]counter.Key, len(notes))
	byShard := make(map[counter.Shard][]counter.Key)
	for i, n := range notes {
		keys[i] = n.Key
		shard := b.cache.Shard(n.Key)
		byShard[shard] = append(byShard[shard], n.Key)
	}
	entries := make(map[counter.Key]cache.Entry, len(keys))
	for shard, some := range byShard {
		snapshot, err := b.cache.Read(ctx, shard, some)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range snapshot.Entries {
			entries[e.Key] = e
		}
	}
	rows, unread := b.rows(ctx, keys)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	letters = make([]Letter, len(notes))
	for i, n := range notes {
		entry, found := entries[n.Key]
		if !found {
			entry.Key, entry.Missing = n.Key, true
		}
		l := Letter{
			Key: n.Key, Shard: b.cache.Shard(n.Key), Reason: n.Reason, Attempts: n.Attempts, Since: n.Since,
			Redis: redisSide(entry), Postgres: Side{State: StateUnknown}, entry: entry,
		}
		if unread == nil {
			row, found := rows[n.Key]
			l.Postgres = postgresSide(row, found)
		}
		letters[i] = l
	}
	return letters, unread, nil
}

func (b *Box) rows(ctx context.Context, keys []counter.Key) (map[counter.Key]counter.Row, error) {
	if deadline, bounded := ctx.Deadline(); bounded {
		half, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
		defer cancel()
		ctx = half
	}
	return b.store.Read(ctx, keys)
}
