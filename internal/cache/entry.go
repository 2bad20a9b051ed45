package cache

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Entry is the entry of a counter in Redis, as it was read.
type Entry struct {
	// Row is its state. Lineage is the epoch in which its unsynced writes began, and Base the version before them. Both are meaningless in
	// a clean entry.
	counter.Row

	Epoch int64 // of the last write; 0: none since it was hydrated

	Missing     bool // there is no entry
	Corrupt     bool // the key holds something that is not an entry
	BaseUnknown bool // it needs its base (see Hydrate) before it can be flushed
	Aside       bool // it waits for a retry, or is dead

	Recorded bool     // its writes that Postgres lacks may have records
	Records  *Records // they, if ReadRecords has read the entry; nil if there are none

	// Partial: Redis has more records, and Row is the state after the last of Records, as if nothing had been written since. It can be
	// flushed, but the entry is dirty afterwards.
	Partial bool
	Through int64 // with Partial: the version of the whole entry

	text string // the string in Redis
}

// Dirty reports whether Postgres lacks the entry, in a shard with the given watermark.
func (e *Entry) Dirty(watermark int64) bool { return e.Epoch > watermark || e.Aside }

const (
	idBase      = 36 // of epoch IDs in Redis
	maxIDDigits = 11 // until the year 6140
	decimal     = 10
)

func formatID(id int64) string { return strconv.FormatInt(id, idBase) }

// decodeEntry reads the text of key's entry, see entry.lua.
func decodeEntry(key counter.Key, text string) Entry {
	e := Entry{Row: counter.Row{Key: key}, text: text}
	if !decodeState(&e, text) {
		return Entry{Row: counter.Row{Key: key}, text: text, Corrupt: true}
	}
	return e
}

// decodeState reports false if text is not an entry. It accepts exactly what decode in entry.lua accepts.
func decodeState(e *Entry, text string) bool {
	f := fields{rest: text}
	e.Value, e.Version = f.int(), f.natural(f.word())
	epoch, rest, more := strings.Cut(f.rest, " ")
	epoch, flags, _ := strings.Cut(epoch, ":")
	e.Epoch = f.id(epoch)
	e.Lineage = e.Epoch
	for _, flag := range flags {
		switch flag {
		case 'x':
			e.Deleted = true
		case 'u', 's':
			e.BaseUnknown = true
		case 'a':
			e.Aside = true
		case 'h':
			e.Recorded = true
		default:
			return false
		}
	}
	for more {
		var field string
		if field, rest, more = strings.Cut(rest, " "); field == "" {
			return false
		}
		switch what := field[1:]; field[0] {
		case 'l':
			e.Lineage = f.id(what)
		case 'b':
			e.Base = f.natural(what)
		case 'w':
			e.Start, e.Started = f.parse(what), true
		case 'p':
			f.endedLineages(what)
		default:
			return false
		}
	}
	return f.err == nil
}

// fields reads integers separated by single spaces and remembers the first error.
type fields struct {
	rest string
	err  error
}

func (f *fields) word() (word string) {
	word, f.rest, _ = strings.Cut(f.rest, " ")
	return word
}

func (f *fields) int() int64 { return f.parse(f.word()) }

func (f *fields) nextID() int64 { return f.id(f.word()) }

func (f *fields) parse(word string) int64 { return f.number(word, decimal) }

// natural reads a number without a sign.
func (f *fields) natural(word string) int64 {
	f.refuse(word, strings.HasPrefix(word, "-"))
	return f.parse(word)
}

// id reads an epoch ID. Longer IDs do not fit into a double, so entry.lua rejects them, too.
func (f *fields) id(word string) int64 {
	f.refuse(word, strings.HasPrefix(word, "-") || len(word) > maxIDDigits)
	return f.number(word, idBase)
}

// endedLineages checks the lineages that a restart ended. Go code does not need their values.
func (f *fields) endedLineages(list string) {
	list, some := strings.CutPrefix(list, ";")
	f.refuse(list, !some)
	for lineage := range strings.SplitSeq(list, ";") {
		id, rest, _ := strings.Cut(lineage, ",")
		value, version, _ := strings.Cut(rest, ",")
		f.id(id)
		f.natural(version)
		if value != "set" {
			f.parse(value)
		}
	}
}

func (f *fields) number(word string, base int) int64 {
	f.refuse(word, strings.HasPrefix(word, "+"))
	n, err := strconv.ParseInt(word, base, 64)
	if err != nil && f.err == nil {
		f.err = err
	}
	return n
}

// refuse records an error about word if refused is true.
func (f *fields) refuse(word string, refused bool) {
	if refused && f.err == nil {
		f.err = fmt.Errorf("%q: %w", word, strconv.ErrSyntax)
	}
}
