package deadletter

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// MaxPage is the most dead letters that Page returns.
const MaxPage = page

// Place is a place in the list of dead letters, which is ordered by shard and key: right after Key, which need not be dead
// any more. The zero value is before the first.
type Place struct {
	Shard counter.Shard
	Key   counter.Key
}

// Page returns up to limit (1 to MaxPage) dead letters after a place, and the place where the next page begins, nil at the
// end. A key that is dead all the time is in exactly one page, whatever becomes of the others. While Postgres does not
// answer, its side is StateUnknown, and unread is why.
//
// It blocks for one bounded call for each shard and 500 of its dead letters, one more for each shard that is in the page, and
// one to Postgres, for at most half of the time that ctx has left.
func (b *Box) Page(ctx context.Context, after Place, limit int) (letters []Letter, next *Place, unread, err error) {
	return b.Search(ctx, "", after, limit)
}

// Search is Page for those dead letters whose key or reason holds the text, in whatever case.
func (b *Box) Search(ctx context.Context, text string, after Place, limit int) (letters []Letter, next *Place, unread, err error) {
	text = strings.ToLower(text)
	limit = min(max(limit, 1), MaxPage)
	var notes []cache.Note
	for s := after.Shard; int(s) < b.cache.Shards() && len(notes) <= limit; s++ {
		more, err := b.notesAfter(ctx, s, text, after.Key, limit-len(notes)+1) // one more tells that there is more
		if err != nil {
			return nil, nil, nil, err
		}
		notes = append(notes, more...)
		after.Key = ""
	}
	if len(notes) > limit {
		notes = notes[:limit]
		last := notes[limit-1].Key
		next = &Place{Shard: b.cache.Shard(last), Key: last}
	}
	letters, unread, err = b.letters(ctx, notes)
	if err != nil {
		return nil, nil, nil, err
	}
	return letters, next, unread, nil
}

// notesAfter returns the first n notes of the shard that hold the text, by key, after a key. Redis has them in no order, so all
// are read.
func (b *Box) notesAfter(ctx context.Context, shard counter.Shard, text string, after counter.Key, n int) ([]cache.Note, error) {
	var first []cache.Note
	cut := func() {
		slices.SortFunc(first, func(x, y cache.Note) int { return cmp.Compare(x.Key, y.Key) })
		first = first[:min(len(first), n)]
	}
	err := b.cache.EachDead(ctx, shard, func(notes []cache.Note) error {
		for _, note := range notes {
			if note.Key > after && holds(note, text) {
				first = append(first, note)
			}
		}
		if len(first) > 2*page {
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

// holds reports whether a note's key or reason holds the text, which is in lower case.
func holds(note cache.Note, text string) bool {
	return text == "" || strings.Contains(strings.ToLower(string(note.Key)), text) || strings.Contains(strings.ToLower(note.Reason), text)
}
