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
// It blocks for one bounded call for each shard and 500 of its dead letters, and two more for each shard that is in the page.
func (b *Box) Page(ctx context.Context, after Place, limit int) (letters []Letter, next *Place, unread, err error) {
	return b.Search(ctx, "", after, limit)
}

// Search is Page for those dead letters whose key or reason holds the text, in whatever case.
func (b *Box) Search(ctx context.Context, text string, after Place, limit int) (letters []Letter, next *Place, unread, err error) {
	text = strings.ToLower(text)
	limit = min(max(limit, 1), MaxPage)
	for s := after.Shard; int(s) < b.cache.Shards(); s++ {
		notes, err := b.notesAfter(ctx, s, text, after.Key, limit-len(letters)+1) // one more tells that there is more
		if err != nil {
			return nil, nil, nil, err
		}
		more := len(notes) > limit-len(letters)
		notes = notes[:min(len(notes), limit-len(letters))]
		if len(notes) > 0 {
			part, failed, err := b.letters(ctx, s, notes)
			if err != nil {
				return nil, nil, nil, err
			}
			unread = cmp.Or(failed, unread)
			letters = append(letters, part...)
		}
		if more {
			last := letters[len(letters)-1]
			return letters, &Place{Shard: last.Shard, Key: last.Key}, unread, nil
		}
		after.Key = ""
	}
	return letters, nil, unread, nil
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
