package cache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

func TestShardWithoutWritesHasNoProgress(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p, err := b.cache.Progress(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, cache.Progress{}, p)
	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Equal(t, cache.Backlog{}, backlog)
	require.Empty(t, b.overdue(t, 0))
	u, err := b.cache.Unflushed(t.Context(), nil)
	require.NoError(t, err)
	require.Zero(t, u.Due)
	require.Equal(t, cache.Nothing, b.take(t, 0, cache.Taking{}).State)
	require.True(t, b.read(t, "a").Missing)
}

func TestCommitIsPublishedToWaiters(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	shard := b.cache.Shard("a")
	acked, connected, ended := make(chan struct{}, 10), make(chan struct{}, 10), make(chan struct{})
	acks := b.cache.Acks(t.Context())
	go func() {
		defer close(ended)
		acks.Run(func(s counter.Shard) {
			if s == shard { // all databases of a Redis share a channel: other tests commit, too
				acked <- struct{}{}
			}
		}, func() { connected <- struct{}{} })
	}()
	<-connected
	o := b.do(t, increment("a", 1))[0]
	progress := func() cache.Progress {
		p, err := b.cache.Progress(t.Context(), shard)
		require.NoError(t, err)
		return p
	}
	require.Less(t, progress().Watermark, o.Epoch)
	require.Equal(t, o.First, progress().First)

	b.flush(t, "a")
	<-acked
	require.GreaterOrEqual(t, progress().Watermark, o.Epoch)
	require.False(t, progress().Aside)

	o = b.do(t, increment("a", 1))[0]
	b.setAside(t, time.Hour, "a")
	e := b.seal(t, "a")
	require.True(t, b.commit(t, e))
	<-acked
	require.GreaterOrEqual(t, progress().Watermark, o.Epoch)
	require.True(t, progress().Aside, "the watermark does not cover this key")
	b.settle(t, b.read(t, "a"))
	<-acked
	require.False(t, progress().Aside)
	acks.Close()
	<-ended
}
