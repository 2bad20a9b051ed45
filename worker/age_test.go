package worker_test

import (
	"context"
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
	require.NoError(t, b.redis.HIncrBy(ctx, b.name(key, "meta"), "open_since", -by.Milliseconds()).Err())
}
