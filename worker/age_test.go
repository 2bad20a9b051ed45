package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
)

// age makes dirty keys look as if their first unsynced write had been that much earlier.
func (b *testBundle) age(t *testing.T, key counter.Key, by time.Duration) {
	t.Helper()
	dirty := "{aw:" + b.cache.Shard(key).String() + "}:dirty"
	changed, err := b.redis.ZAddArgsIncr(context.Background(), dirty, redis.ZAddArgs{
		XX: true, Members: []redis.Z{{Score: -float64(by.Milliseconds()), Member: string(key)}},
	}).Result()
	require.NoError(t, err)
	require.Positive(t, changed, "%q is not dirty", key)
}
