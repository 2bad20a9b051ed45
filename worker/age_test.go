package worker_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// age makes the open epoch of key's shard look as if its first write had been that much earlier.
func (b *testBundle) age(t *testing.T, key counter.Key, by time.Duration) {
	t.Helper()
	ctx := context.Background()
	require.True(t, b.redis.SIsMember(ctx, b.name(key, "open"), string(key)).Val(), "%q is not in the open epoch", key)
	meta := strings.Fields(b.redis.Get(ctx, b.name(key, "meta")).Val()) // <open> <since> ...
	require.Greater(t, len(meta), 1)
	since, err := strconv.ParseInt(meta[1], 10, 64)
	require.NoError(t, err)
	meta[1] = strconv.FormatInt(since-by.Milliseconds(), 10)
	require.NoError(t, b.redis.Set(ctx, b.name(key, "meta"), strings.Join(meta, " "), 0).Err())
}
