package counter

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

// MaxKeyBytes bounds the length of a key. With 255 bytes an index entry in Postgres is far below its limit of about 2,700 bytes, and a
// URL is well below the limits of proxies, even if each byte is percent-encoded.
const MaxKeyBytes = 255

// Key names a counter: 1 to MaxKeyBytes bytes of valid UTF-8 without control characters. Make one with ParseKey.
type Key string

// ParseKey checks s and returns it as a Key. Its error is an *Error with CodeInvalidKey and a detail.
func ParseKey(s string) (Key, error) {
	switch {
	case s == "":
		return "", invalidKey("the key is empty: it must have 1 to %d bytes", MaxKeyBytes)
	case len(s) > MaxKeyBytes:
		return "", invalidKey("the key has %d bytes: it must have 1 to %d", len(s), MaxKeyBytes)
	case isVisibleASCII(s): // nearly all keys, in a third of the time
		return Key(s), nil
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

// isVisibleASCII reports whether s has only ASCII without control characters.
func isVisibleASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func invalidKey(format string, args ...any) error {
	return &Error{Code: CodeInvalidKey, Detail: fmt.Sprintf(format, args...)}
}

// Shard is the number of a part of the key space, 0 to shards-1.
type Shard int

// MaxShards bounds the number of shards: each costs some commands in every sweep and sample.
const MaxShards = 4096

// Shard returns the shard of the key. For a given number of shards the result must never change, because entries are stored under it.
func (k Key) Shard(shards int) Shard {
	return Shard(xxhash.Sum64String(string(k)) % uint64(shards)) //nolint:gosec // 1 to MaxShards
}

// String returns the name of the shard in Redis keys, task IDs and logs: at least two digits, such as "07".
func (s Shard) String() string {
	return fmt.Sprintf("%02d", int(s))
}
