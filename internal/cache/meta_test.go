package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
)

func TestCheckMetaNamesDifferingSettings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.cache.CheckMeta(t.Context()))
	require.NoError(t, b.cache.CheckMeta(t.Context()))
	other := cache.New(b.redis, cache.Options{Shards: testShards + 1, CleanTTL: time.Hour})
	err := other.CheckMeta(t.Context())
	var settings *cache.SettingsError
	require.ErrorAs(t, err, &settings)
	require.Contains(t, err.Error(), "AFTERWRITE_SHARDS=4")

	require.NoError(t, b.redis.HSet(t.Context(), "aw:meta", "layout", "1").Err())
	require.ErrorContains(t, b.cache.CheckMeta(t.Context()), "drain it with the program that wrote them")
}

func TestOneProcessReportsThatRedisWasEmptied(t *testing.T) {
	t.Parallel()
	b := setup(t)
	process := func() *cache.Cache {
		c := cache.New(b.redis, cache.Options{Shards: testShards, CleanTTL: time.Hour})
		require.NoError(t, c.CheckMeta(t.Context()))
		return c
	}
	told := func(caches ...*cache.Cache) (n int) {
		for range 2 {
			for _, c := range caches {
				emptied, err := c.Emptied(t.Context())
				require.NoError(t, err)
				if emptied {
					n++
				}
			}
		}
		return n
	}
	first, second := process(), process()
	require.Zero(t, told(first, second, cache.New(b.redis, cache.Options{Shards: testShards, CleanTTL: time.Hour})), "a first start")

	for range 2 { // the data can be lost again
		require.NoError(t, b.redis.FlushDB(context.Background()).Err())
		late := process()
		require.Zero(t, told(late), "it had not seen the data before")
		require.Equal(t, 1, told(second, first, late))
	}
}
