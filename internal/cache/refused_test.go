package cache

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// A Redis that refuses a call was reached: operations queued behind that call are sent and get their own answers.
func TestOperationsBehindARefusedCallAreSent(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(t *testing.T, c *Cache){
		"full": func(t *testing.T, c *Cache) {
			t.Helper()
			require.NoError(t, c.client.ConfigSet(t.Context(), "maxmemory", "1").Err())
		},
		"unexpected type": func(t *testing.T, c *Cache) {
			t.Helper()
			require.NoError(t, c.client.Set(t.Context(), c.openKey(c.Shard("write")), "x", 0).Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := Connect(localtest.OwnRedis(t, local.RedisOptions{}).URL(), 2)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, client.Close()) })
			c := New(client, Options{Shards: 1, CleanTTL: time.Hour})
			entered, release := make(chan struct{}, 10), make(chan struct{})
			w := c.NewWriter(func() bool { entered <- struct{}{}; <-release; return true })
			t.Cleanup(w.Close)
			require.NoError(t, client.Set(t.Context(), c.entryKey("read"), "7 1 0 lzzzzzzzzzz", 0).Err())
			require.NoError(t, client.Set(t.Context(), c.entryKey("write"), "7 1 0 lzzzzzzzzzz", 0).Err())
			refuse(t, c)

			var group sync.WaitGroup
			do := func(o *Outcome, kind counter.Kind, key counter.Key) {
				group.Go(func() {
					*o = w.Do(t.Context(), []Write{{Operation: counter.Operation{Key: key, Kind: kind, Amount: 1}}})[0]
				})
			}
			var write, read Outcome
			do(&write, counter.Increment, "write")
			<-entered
			do(&read, counter.Get, "read")
			localtest.Eventually(t, 10*time.Second, func() (bool, string) { return len(w.queue) == 1, "the read is not queued" })
			close(release)
			group.Wait()

			require.Error(t, write.Err)
			require.NotEqual(t, counter.CodeCacheUnavailable, counter.CodeOf(write.Err))
			require.NoError(t, read.Err)
			require.Equal(t, int64(7), read.Value)
		})
	}
}
