package convert

import (
	"strconv"
	"strings"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// The names of a shard's keys in both layouts. They do not come from package cache: if that changes its names, this package must still
// read and write these.

func tag(s counter.Shard) string      { return "{aw:" + s.String() + "}" }
func metaKey(s counter.Shard) string  { return tag(s) + ":meta" }
func openKey(s counter.Shard) string  { return tag(s) + ":open" }
func retryKey(s counter.Shard) string { return tag(s) + ":retry" }
func deadKey(s counter.Shard) string  { return tag(s) + ":dead" }  // in both
func dirtyKey(s counter.Shard) string { return tag(s) + ":dirty" } // layout 2
func genKey(s counter.Shard) string   { return tag(s) + ":gen" }   // layout 2
func drainKey(s counter.Shard) string { return tag(s) + ":drain" } // in both

// conversionKey has the token of the conversion in a new shard, until the conversion ends.
func conversionKey(s counter.Shard) string { return tag(s) + ":conversion" }

const (
	entryPart  = ":c:"
	recordPart = ":i:"
)

func entryKey(s counter.Shard, key counter.Key) string { return tag(s) + entryPart + string(key) }

// name is the parsed name of an entry or an idempotency record.
type name struct {
	shard  counter.Shard
	record bool
	id     string // of a record
	key    counter.Key
}

// String returns the Redis key.
func (n name) String() string {
	if n.record {
		return tag(n.shard) + recordPart + n.id + "\x00" + string(n.key)
	}
	return entryKey(n.shard, n.key)
}

// parseName parses a Redis key. It returns false if text is not the name of an entry or a record.
func parseName(text string) (n name, ok bool) {
	number, rest, ok := strings.Cut(strings.TrimPrefix(text, "{aw:"), "}")
	if !ok {
		return n, false
	}
	shard, err := strconv.Atoi(number)
	if err != nil {
		return n, false
	}
	n.shard = counter.Shard(shard)
	if key, ok := strings.CutPrefix(rest, recordPart); ok {
		n.record = true
		n.id, rest, ok = strings.Cut(key, "\x00")
		if !ok {
			return n, false
		}
	} else if rest, ok = strings.CutPrefix(rest, entryPart); !ok {
		return n, false
	}
	n.key, err = counter.ParseKey(rest)
	return n, err == nil && n.String() == text
}
