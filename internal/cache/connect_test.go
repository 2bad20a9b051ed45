package cache_test

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// go-redis would have connections of their own for pipelines.
func TestPipelinesUseTheConnectionsThatAreBounded(t *testing.T) {
	t.Parallel()
	server, master := localtest.OwnRedis(t, local.RedisOptions{}), localtest.OwnRedis(t, local.RedisOptions{Open: true})
	node, clusterURL := cluster(t)
	sentinel := localtest.OwnRedis(t, local.RedisOptions{
		Open: true, File: true, Args: []string{"--sentinel"},
		Lines: []string{"sentinel monitor m " + strings.Replace(master.Addr(), ":", " ", 1) + " 1"},
	})
	for url, observer := range map[string]redis.UniversalClient{
		server.URL(): connectTLS(t, server.URL(), cache.TLSFiles{}),
		clusterURL:   node,
		"redis-sentinel://" + sentinel.Addr() + "/0?master=m": connectTLS(t, master.URL(), cache.TLSFiles{}),
	} {
		scheme, _, _ := strings.Cut(url, "://")
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			client, err := cache.Connect(url, 1)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, client.Close()) })
			require.NoError(t, client.Set(t.Context(), "k", "v", 0).Err())
			connections := named(t, observer)
			require.NoError(t, readThrice(t.Context(), client))
			require.Subset(t, connections, named(t, observer))
		})
	}
}

// named returns the IDs of the connections of clients that Connect has made.
func named(t *testing.T, observer redis.UniversalClient) (ids []string) {
	t.Helper()
	clients, err := observer.ClientList(t.Context()).Result()
	require.NoError(t, err)
	for line := range strings.Lines(clients) {
		if strings.Contains(line, " name=afterwrite ") {
			id, _, _ := strings.Cut(line, " ")
			ids = append(ids, id)
		}
	}
	require.NotEmpty(t, ids)
	return ids
}
