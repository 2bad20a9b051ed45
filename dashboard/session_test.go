package dashboard_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/access"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestASignOutWhileRedisIsAwayHoldsEverywhereOnceItIsBack(t *testing.T) {
	t.Parallel()
	d := *setupDesk(t) // which closes what is its own
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	client, err := cache.Connect(server.URL(), 20)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	d.redis, d.cache = client, cache.New(client, cache.Options{Shards: 4, CleanTTL: time.Hour})
	here := d.serve(t, false, access.Options{Users: people()}).as(t, "olga")
	there := &door{address: d.serve(t, false, access.Options{Users: people()}).address, cookie: here.cookie}
	require.Equal(t, http.StatusOK, there.get(t, "/actions").status)

	require.NoError(t, server.Stop(t.Context()))
	signedOut := here.post(t, "/signout", nil)
	require.Equal(t, http.StatusServiceUnavailable, signedOut.status)
	require.Contains(t, signedOut.body, "You are signed out of this process")
	require.NoError(t, server.Start(t.Context()))

	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return there.send(t, http.MethodGet, "/actions", "").status == http.StatusUnauthorized, "the session goes on there"
	})
}
