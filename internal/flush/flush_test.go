package flush_test

import (
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/flush"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// A key whose row is locked is put aside for some seconds, and due again after the flush was asked for.
func TestAKeyThatComesDueDuringAFlushIsStillLeft(t *testing.T) {
	t.Parallel()
	client := localtest.Redis(t)
	c := cache.New(client, cache.Options{Shards: 4, CleanTTL: time.Hour})
	f := flush.New(c, asynq.NewClientFromRedisClient(client))
	const key counter.Key = "held"
	dirty := "{aw:" + c.Shard(key).String() + "}:dirty"
	for name, keys := range map[string][]counter.Key{"of the key": {key}, "of all": nil} {
		require.NoError(t, client.ZAdd(t.Context(), dirty, redis.Z{Score: 1, Member: string(key)}).Err())
		require.NoError(t, c.Park(t.Context(), key, 300*time.Millisecond))
		left, err := f.Flush(t.Context(), keys, time.Second)
		require.NoError(t, err)
		require.Equal(t, flush.Left{Dirty: 1}, left, "%s: it is due, and nobody has flushed it", name)
	}
	require.NoError(t, client.ZRem(t.Context(), dirty, string(key)).Err())
	left, err := f.Flush(t.Context(), nil, time.Second)
	require.NoError(t, err)
	require.Zero(t, left)
}
