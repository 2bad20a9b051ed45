package cache

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// maxRecorded bounds the entries of one call of records.lua, trim.lua or stray.lua.
const maxRecorded = 100

// Records are the records of a counter that Postgres lacks, in order. There is at least one.
type Records struct {
	All []counter.Record

	texts []string // as they are in Redis
}

// last returns the last record as it is in Redis.
func (r *Records) last() string { return r.texts[len(r.All)-1] }

// shareOf returns each shard's share of a bound, at least 1; without a bound, more than any shard holds.
func shareOf(bound int64, shards int) int64 {
	const unbounded = int64(1) << 50
	if bound == 0 {
		return unbounded
	}
	return max(bound/int64(max(shards, 1)), 1)
}

// MaxRecords returns the bound of the records of one shard that Postgres lacks.
func (c *Cache) MaxRecords() int64 { return c.room }

// HasHistory reports whether the operations on some keys are recorded.
func (c *Cache) HasHistory() bool { return c.history != nil }

// Recorded reports whether the operations on key are recorded. Such operations are sent one by one, never combined.
func (c *Cache) Recorded(key counter.Key) bool { return c.history != nil && c.history(key) }

// ReadRecords reads the recorded entries of a snapshot again, each together with its records, so that both agree. It reads up to 10,000
// records of an entry (see Entry.Partial). It makes no call if there are none, and otherwise one round trip for each 100.
func (c *Cache) ReadRecords(ctx context.Context, s *Snapshot) error {
	var recorded, indivisible []int
	for i := range s.Entries {
		if s.Entries[i].Recorded {
			recorded = append(recorded, i)
		}
	}
	if err := c.readRecords(ctx, s, recorded, maxPart+1); err != nil {
		return err
	}
	for _, place := range recorded {
		if !s.Entries[place].divide(maxPart) {
			indivisible = append(indivisible, place)
		}
	}
	return c.readRecords(ctx, s, indivisible, 0)
}

// maxPart bounds the records of an entry that are flushed together. They are one transaction.
const maxPart = 10_000

// divide cuts an entry with more than most records down to its first records, and to the state after them. It returns false if that state
// is not known, or belongs to a lineage that has ended. It does not divide an entry with an unknown base, which is not flushed.
func (e *Entry) divide(most int) bool {
	if e.Records == nil || len(e.Records.All) <= most || e.BaseUnknown || e.Corrupt {
		return true
	}
	r := &e.Records.All[most-1]
	if !r.Known || r.Lineage != e.Lineage {
		return false
	}
	e.Records.All = e.Records.All[:most]
	e.Through, e.text = e.Version, "" // without text, so that Settle does not take the part for the whole
	e.Value, e.Version, e.Deleted, e.Partial = r.Value, r.Version, r.Deleted, true
	return true
}

// readRecords reads the entries of a snapshot at some places, each with up to most records; 0: all.
func (c *Cache) readRecords(ctx context.Context, s *Snapshot, places []int, most int) error {
	for part := range slices.Chunk(places, maxRecorded) {
		names := make([]string, 0, 2*len(part))
		for _, place := range part {
			key := s.Entries[place].Key
			names = append(names, c.entryKey(key), c.listKey(key))
		}
		reply, err := recordsScript.Run(ctx, c.client, names, most).Slice()
		if err == nil && len(reply) != len(names) {
			err = fmt.Errorf("redis answered %d values", len(reply))
		}
		if err != nil {
			return fmt.Errorf("read the records of %d keys of shard %s: %w", len(part), s.Shard, err)
		}
		for i, place := range part {
			s.Entries[place] = decodeRecorded(s.Entries[place].Key, reply[2*i], reply[2*i+1])
		}
	}
	return nil
}

// decodeRecorded reads an entry and its records from the reply of records.lua.
func decodeRecorded(key counter.Key, text, list any) Entry {
	entry, found := text.(string)
	if !found {
		return Entry{Row: counter.Row{Key: key}, Missing: true}
	}
	e := decodeEntry(key, entry)
	texts, ok := list.([]any)
	e.Corrupt = e.Corrupt || !ok
	if len(texts) == 0 {
		return e
	}
	e.Records = &Records{All: make([]counter.Record, len(texts)), texts: make([]string, len(texts))}
	for i, record := range texts {
		var ok bool
		e.Records.texts[i] = fmt.Sprint(record)
		e.Records.All[i], ok = decodeRecord(e.Records.texts[i], !e.BaseUnknown)
		e.Corrupt = e.Corrupt || !ok
	}
	return e
}

// decodeRecord reads a record, see records.lua. known: the base of its counter is known.
func decodeRecord(text string, known bool) (counter.Record, bool) {
	words := strings.SplitN(text, " ", len([]string{"version", "value", "lineage", "operation", "ms", "origin"}))
	if len(words) < 6 || words[3] == "" {
		return counter.Record{}, false
	}
	var f fields
	r := counter.Record{Version: f.natural(words[0]), Lineage: f.id(words[2]), At: time.UnixMilli(f.parse(words[4])).UTC()}
	if words[1] != "-" {
		r.Value, r.Known = f.parse(words[1]), known
	}
	switch words[3][0] {
	case 'i':
		r.Change = counter.Incremented
	case 's':
		r.Change = counter.Assigned
	case 'd':
		r.Change = counter.Removed
	case 'r':
		r.Change = counter.Rewound
	default:
		return r, false
	}
	if amount := words[3][1:]; amount != "" {
		r.Amount = f.parse(amount)
	} else {
		r.Deleted = true
	}
	r.Caller, words[5], _ = strings.Cut(words[5], "\t")
	r.Request, r.Note, _ = strings.Cut(words[5], "\t")
	return r, f.err == nil
}

// encodeOrigin returns the origin of a record. It is text that Postgres accepts, without control characters.
func encodeOrigin(o *counter.Origin) string {
	if o == nil || *o == (counter.Origin{}) {
		return ""
	}
	return printable(o.Caller) + "\t" + printable(o.Request) + "\t" + printable(o.Note)
}

// maxOriginBytes bounds each part of an origin.
const maxOriginBytes = 256

func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxOriginBytes)], "?")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

// Trim removes the records of entries that Postgres has, as ReadRecords has read them. It removes none that Postgres may lack, and may be
// repeated. It makes no call if there are none, and otherwise one round trip for each 100 entries of one shard.
func (c *Cache) Trim(ctx context.Context, shard counter.Shard, entries []Entry) error {
	var recorded []int
	for i := range entries {
		if entries[i].Records != nil {
			recorded = append(recorded, i)
		}
	}
	for part := range slices.Chunk(recorded, maxRecorded) {
		names, args := []string{c.countKey(shard)}, make([]any, 0, len(part))
		for _, place := range part {
			names, args = append(names, c.listKey(entries[place].Key)), append(args, entries[place].Records.last())
		}
		if err := trimScript.Run(ctx, c.client, names, args...).Err(); err != nil {
			return fmt.Errorf("remove the flushed records of %d keys of shard %s: %w", len(part), shard, err)
		}
	}
	return nil
}

// DropStray removes the records of keys of one shard that have no entry: no flush would write them, and they would count towards the bound
// for ever. It leaves all other keys alone, and may be repeated. One round trip for each 100 keys.
func (c *Cache) DropStray(ctx context.Context, shard counter.Shard, keys []counter.Key) error {
	for part := range slices.Chunk(keys, maxRecorded) {
		names := []string{c.countKey(shard)}
		for _, key := range part {
			names = append(names, c.entryKey(key), c.listKey(key))
		}
		if err := strayScript.Run(ctx, c.client, names).Err(); err != nil {
			return fmt.Errorf("remove the records of %d keys without entries of shard %s: %w", len(part), shard, err)
		}
	}
	return nil
}

// Pending returns the entry of key and the records of its writes that Postgres lacks. Their versions and values count from the base while
// that is unknown. Two round trips.
func (c *Cache) Pending(ctx context.Context, key counter.Key) (Entry, error) {
	snapshot, err := c.Read(ctx, c.Shard(key), []counter.Key{key})
	if err == nil && snapshot.Entries[0].Recorded {
		err = c.readRecords(ctx, &snapshot, []int{0}, 0)
	}
	if err != nil {
		return Entry{}, err
	}
	return snapshot.Entries[0], nil
}

func (c *Cache) listKey(key counter.Key) string { return c.tag(c.Shard(key)) + ":h:" + string(key) }
