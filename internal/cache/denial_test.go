package cache_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestARedisThatDoesNotLetUsInSaysWhy(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	require.NoError(t, setupOn(t, server.URL()).redis.Do(t.Context(), "ACL", "SETUSER", "weak", "on", ">secret", "~*", "+time").Err())
	for user, word := range map[string]string{"": "NOAUTH", "nobody:wrong@": "WRONGPASS", "weak:secret@": "NOPERM"} {
		b := setupOn(t, "redis://"+user+server.Addr()+"/0")
		_, err := b.cache.BacklogByShard(t.Context())
		require.Equal(t, word, cache.Denial(err), "%v", err)
		backlog, err := b.cache.Backlog(t.Context())
		require.Equal(t, word, cache.Denial(err), "%+v is not known to be all", backlog)
		_, err = b.cache.DirtyCount(t.Context())
		require.Equal(t, word, cache.Denial(err))
		_, err = b.cache.Overdue(t.Context(), 0)
		require.Equal(t, word, cache.Denial(err))
	}
	require.Empty(t, cache.Denial(nil))
}
