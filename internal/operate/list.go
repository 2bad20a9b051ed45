package operate

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// MaxPage bounds the number of dead letters that List returns.
const MaxPage = pageSize

// Cursor is a position in the list of dead letters, which is ordered by shard and key: the position after Key, which need not be
// dead any more. The zero value is the start of the list.
type Cursor struct {
	Shard counter.Shard
	Key   counter.Key
}

// String encodes the cursor for a URL. The result is not secret, and its format may change.
func (c Cursor) String() string {
	return base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%d:%s", c.Shard, c.Key))
}

// ParseCursor decodes the result of Cursor.String.
func ParseCursor(text string) (Cursor, error) {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	shard, key, _ := strings.Cut(string(decoded), ":")
	number, shardErr := strconv.ParseUint(shard, 10, 16)
	parsed, keyErr := counter.ParseKey(key)
	if err := errors.Join(err, shardErr, keyErr); err != nil {
		return Cursor{}, fmt.Errorf("parse a cursor: %w", err)
	}
	return Cursor{Shard: counter.Shard(number), Key: parsed}, nil
}

// Each calls show with all dead letters, shard by shard, up to 500 in a call and each key once. It may miss or include keys that
// become dead, or are no longer dead, meanwhile. An error of show ends Each, which returns it unchanged.
//
// Each blocks for three bounded calls for each page, and keeps the keys of one shard in memory.
func (s *Service) Each(ctx context.Context, show func([]DeadLetter) error) error {
	for shard := range s.cache.Shards() {
		err := s.cache.EachDead(ctx, counter.Shard(shard), func(notes []cache.Note) error {
			for part := range slices.Chunk(notes, pageSize) {
				dead, err := s.read(ctx, part)
				if err != nil {
					return err
				}
				if err := show(dead); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// List returns up to limit (1 to MaxPage) dead letters after a cursor, and the cursor of the next page, or nil at the end. If text
// is not "", List returns only dead letters whose key or reason contains it, regardless of case. A key that stays dead is on
// exactly one page.
//
// List blocks for one bounded call for every 500 dead letters of each shard, one more for each shard on the page, and one to
// Postgres, which gets at most half of the time that ctx has left.
func (s *Service) List(ctx context.Context, text string, after Cursor, limit int) (dead []DeadLetter, next *Cursor, err error) {
	text = strings.ToLower(text)
	limit = min(max(limit, 1), MaxPage)
	var notes []cache.Note
	for shard := after.Shard; int(shard) < s.cache.Shards() && len(notes) <= limit; shard++ {
		more, err := s.notesAfter(ctx, shard, text, after.Key, limit-len(notes)+1) // one more, to find out whether there is a next page
		if err != nil {
			return nil, nil, err
		}
		notes = append(notes, more...)
		after.Key = ""
	}
	if len(notes) > limit {
		notes = notes[:limit]
		last := notes[limit-1].Key
		next = &Cursor{Shard: s.cache.Shard(last), Key: last}
	}
	dead, err = s.read(ctx, notes)
	return dead, next, err
}

// notesAfter returns the first n notes, by key, that are after a key and contain the text. It reads all notes of the shard, because
// Redis does not order them.
func (s *Service) notesAfter(ctx context.Context, shard counter.Shard, text string, after counter.Key, n int) ([]cache.Note, error) {
	var first []cache.Note
	cut := func() {
		slices.SortFunc(first, func(x, y cache.Note) int { return cmp.Compare(x.Key, y.Key) })
		first = first[:min(len(first), n)]
	}
	err := s.cache.EachDead(ctx, shard, func(notes []cache.Note) error {
		for _, note := range notes {
			if note.Key > after && contains(note, text) {
				first = append(first, note)
			}
		}
		if len(first) > 2*pageSize {
			cut()
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	cut()
	return first, nil
}

// contains reports whether a note's key or reason contains text, regardless of case. text must be in lower case.
func contains(note cache.Note, text string) bool {
	return text == "" || strings.Contains(strings.ToLower(string(note.Key)), text) || strings.Contains(strings.ToLower(note.Reason), text)
}
