package localtest

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// OpenEpoch makes keys dirty that have no entries, in a shard without epochs: since the given time they are in its open epoch (see
// internal/cache/entry.lua).
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
