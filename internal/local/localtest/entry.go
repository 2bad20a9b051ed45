package localtest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// OpenEpoch gives a shard without epochs an open epoch that began at the time since and has these keys (see
// internal/cache/entry.lua). It creates no entries.
func OpenEpoch(t testing.TB, client redis.Cmdable, shard string, since time.Time, keys ...string) {
	t.Helper()
	members := make([]any, len(keys))
	for i, key := range keys {
		members[i] = key
	}
	tag, id := "{aw:"+shard+"}", strconv.FormatInt(since.UnixMicro(), 36)
	meta := fmt.Sprintf("%s %d 0 %s 00000000 0 0 0", id, since.UnixMilli(), id)
	require.NoError(t, client.SAdd(t.Context(), tag+":open", members...).Err())
	require.NoError(t, client.Set(t.Context(), tag+":meta", meta, 0).Err())
}

// EntryFields parses the text of an entry (see internal/cache/entry.lua). The keys are v, n and e for value, version and epoch, the
// letters of its flags (x, u, s, a) with the value "1", and the letters of its other fields.
func EntryFields(text string) map[string]string {
	fields := make(map[string]string)
	for i, word := range strings.Fields(text) {
		switch i {
		case 0:
			fields["v"] = word
		case 1:
			fields["n"] = word
		case 2:
			epoch, flags, _ := strings.Cut(word, ":")
			fields["e"] = epoch
			for _, flag := range flags {
				fields[string(flag)] = "1"
			}
		default:
			fields[word[:1]] = word[1:]
		}
	}
	return fields
}
