package cache

import (
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// Entry is what Redis has of a counter, as it was read.
type Entry struct {
	// Row is its state. Lineage is the epoch in which its run of unsynced writes began, and Base the version before it; they
	// say nothing of a clean entry.
	counter.Row

	Epoch int64 // of the last write; 0: none since it came from Postgres

	Missing     bool // there is none
	Corrupt     bool // the key holds something that is not an entry
	BaseUnknown bool // the base must be brought in with Hydrate before it can be flushed
	Aside       bool // it waits for a retry, or is dead

	text string // as it is in Redis
}

// Dirty reports that Postgres does not have the entry, in a shard with the given watermark.
func (e *Entry) Dirty(watermark int64) bool { return e.Epoch > watermark || e.Aside }

const (
	idBase  = 36 // of epochs and lives in Redis
	decimal = 10
)

func formatID(id int64) string { return strconv.FormatInt(id, idBase) }

// parseID reads an epoch or a life.
func parseID(s string) (int64, error) { return strconv.ParseInt(s, idBase, 64) }

// decodeEntry reads the text of key's entry, see entry.lua.
func decodeEntry(key counter.Key, text string) Entry {
	e := Entry{Row: counter.Row{Key: key}, text: text}
	if !decodeState(&e, text) {
		return Entry{Row: counter.Row{Key: key}, text: text, Corrupt: true}
	}
	return e
}

// decodeState reports false if text is not an entry.
func decodeState(e *Entry, text string) bool {
	f := fields{rest: text}
	e.Value, e.Version = f.int(), f.int()
	epoch, flags, _ := strings.Cut(f.word(), ":")
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
		default:
			return false
		}
	}
	for f.rest != "" {
		field := f.word()
		if field == "" {
			return false
		}
		switch field[0] {
		case 'l':
			e.Lineage = f.id(field[1:])
		case 'b':
			e.Base = f.parse(field[1:])
		case 'w', 'p':
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

func (f *fields) word() string {
	var word string
	word, f.rest, _ = strings.Cut(f.rest, " ")
	return word
}

func (f *fields) int() int64 { return f.parse(f.word()) }

func (f *fields) nextID() int64 { return f.id(f.word()) }

func (f *fields) parse(word string) int64 { return f.number(word, decimal) }

func (f *fields) id(word string) int64 { return f.number(word, idBase) }

func (f *fields) number(word string, base int) int64 {
	n, err := strconv.ParseInt(word, base, 64)
	if err != nil && f.err == nil {
		f.err = err
	}
	return n
}
