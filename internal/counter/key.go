package counter

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

// MaxKeyBytes bounds the length of a key. 255 keeps a Postgres index entry small (its limit is about 2,700 bytes) and
// an URL well under every proxy's limit even when each byte is percent-encoded.
const MaxKeyBytes = 255

// Key names a counter: 1 to MaxKeyBytes bytes of valid UTF-8 without control characters. Make one with ParseKey.
type Key string

// ParseKey checks s and returns it as a Key. The error is an *Error with CodeInvalidKey whose detail says what is wrong.
func ParseKey(s string) (Key, error) {
	switch {
	case s == "":
		return "", invalidKey("the key is empty: it takes 1 to %d bytes", MaxKeyBytes)
	case len(s) > MaxKeyBytes:
		return "", invalidKey("the key has %d bytes: it takes 1 to %d", len(s), MaxKeyBytes)
	case !utf8.ValidString(s):
		return "", invalidKey("the key is not valid UTF-8")
	}
	for i, r := range s {
		if unicode.IsControl(r) {
			return "", invalidKey("the key has a control character (%U) at byte %d", r, i)
		}
	}
	return Key(s), nil
}

func invalidKey(format string, args ...any) error {
	return &Error{Code: CodeInvalidKey, Detail: fmt.Sprintf(format, args...)}
}

// Shard is the number of a part of the key space, 0 to shards-1.
type Shard int

// MaxShards bounds the number of shards: every one of them costs a sweep and a sample some commands.
const MaxShards = 4096

// Shard returns the shard that the key belongs to. It must never change for a given number of shards: entries are
// stored under it.
func (k Key) Shard(shards int) Shard {
	return Shard(xxhash.Sum64String(string(k)) % uint64(shards)) //nolint:gosec // 1 to MaxShards
}

// String gives the shard its name in Redis keys, task IDs and logs: at least two digits, "07".
func (s Shard) String() string {
	return fmt.Sprintf("%02d", int(s))
}
