package cache_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func (b *testBundle) overdue(t *testing.T, age time.Duration) []counter.Shard {
	t.Helper()
	shards, err := b.cache.Overdue(t.Context(), age)
	require.NoError(t, err)
	return shards
}

// age makes the open or the sealed epoch begin an hour ago.
func (b *testBundle) age(t *testing.T, key counter.Key, which string) {
	t.Helper()
	now, err := b.cache.Now(t.Context())
	require.NoError(t, err)
	b.setMeta(t, key, which, strconv.FormatInt(now-time.Hour.Milliseconds()-1, 10))
}

func TestShardsAreOverdueByTheirOldestEpoch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	require.Empty(t, b.overdue(t, 0))
	b.do(t, increment("a", 1))
	shard := b.cache.Shard("a")

	require.Empty(t, b.overdue(t, time.Minute))
	require.Equal(t, []counter.Shard{shard}, b.overdue(t, 0))
	b.age(t, "a", "since")
	require.Equal(t, []counter.Shard{shard}, b.overdue(t, time.Minute))
	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Greater(t, backlog.Oldest, time.Hour)

	e := b.seal(t, "a")
	require.Empty(t, b.overdue(t, time.Minute), "it is being flushed")
	require.NoError(t, b.cache.Release(t.Context(), shard, "test"))
	require.Equal(t, []counter.Shard{shard}, b.overdue(t, time.Minute), "it is sealed, and its worker has died")
	b.do(t, increment("a", 1))
	backlog, err = b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Greater(t, backlog.Oldest, time.Hour, "the age of the older of the two epochs")
	require.True(t, b.commit(t, e))
	require.Empty(t, b.overdue(t, time.Minute))
}

func TestShardsWithDueRetriesAreOverdue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.flushAside(t, "a")
	require.NoError(t, b.cache.Release(t.Context(), b.cache.Shard("a"), "test"))
	require.Empty(t, b.overdue(t, 0))
	b.setAside(t, 0, "a")
	require.Equal(t, []counter.Shard{b.cache.Shard("a")}, b.overdue(t, time.Hour))
	require.NoError(t, b.cache.Bury(t.Context(), "a", cache.Dead{}))
	require.Empty(t, b.overdue(t, 0), "a dead key is not swept")
}

func TestBacklogsCountEachShard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(4)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1), increment(keys[1], 1))
	e := b.seal(t, keys[0])
	b.setAside(t, time.Hour, keys[1])
	require.NoError(t, b.cache.Bury(t.Context(), keys[0], cache.Dead{}))
	require.True(t, b.commit(t, e))
	b.do(t, increment(keys[2], 1), increment(keys[3], 1))
	b.seal(t, keys[0])
	b.do(t, increment(keys[3], 1))

	shards, err := b.cache.Backlogs(t.Context())
	require.NoError(t, err)
	require.Len(t, shards, testShards)
	require.Equal(t, int64(1), shards[1].Retrying)
	require.Equal(t, int64(1), shards[1].Dead)
	require.Equal(t, int64(4), shards[1].Dirty, "two sealed keys, one of them written again, and the set-aside key")
	require.Zero(t, shards[0].Dirty+shards[0].Dead+shards[0].Retrying)
	require.Equal(t, cache.Backlog{Dirty: 4, Retrying: 1, Dead: 1, Oldest: shards[1].Oldest}, shards.Sum())
}

func TestUnflushedCountsKeysWrittenBeforeTheMoment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.warm(t, keys...)
	unflushed := func(before cache.Moment) cache.Unflushed {
		all, err := b.cache.Unflushed(t.Context(), before)
		require.NoError(t, err)
		of, err := b.cache.UnflushedOf(t.Context(), keys[:2], before)
		require.NoError(t, err)
		require.Equal(t, all.Due, of.Due, "nothing else is dirty")
		require.Equal(t, all.Shards, of.Shards)
		return all
	}
	require.Zero(t, unflushed(nil).Due)
	b.do(t, increment(keys[0], 1))
	moment := unflushed(nil)
	require.Equal(t, int64(1), moment.Due)
	require.Equal(t, []counter.Shard{1}, moment.Shards)
	require.Equal(t, int64(1), unflushed(moment.At).Due)

	e := b.seal(t, keys[0])
	require.Equal(t, int64(1), unflushed(moment.At).Due)
	b.do(t, increment(keys[1], 1))
	all, err := b.cache.Unflushed(t.Context(), moment.At)
	require.NoError(t, err)
	require.Equal(t, int64(1), all.Due, "later writes do not count")
	require.True(t, b.commit(t, e))
	require.Zero(t, unflushed(moment.At).Due)
	require.Equal(t, int64(1), unflushed(nil).Due)
	b.flush(t, keys[1])
	require.Zero(t, unflushed(nil).Due)
}

// If the last key leaves the open epoch without a flush, the next write sets the epoch's age.
func TestEmptiedEpochIsAsOldAsItsNextWrite(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.age(t, "a", "since")
	b.setAside(t, time.Minute, "a")
	b.settle(t, b.read(t, "a"))
	require.Empty(t, b.in(t, "a"))

	b.do(t, increment("a", 1))

	require.Empty(t, b.overdue(t, time.Minute))
	require.Equal(t, cache.Early, b.take(t, b.cache.Shard("a"), cache.Taking{MinAge: time.Minute}).State)
}

func TestDeniedAccessIsReportedAsADenial(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	require.NoError(t, setupOn(t, server.URL()).redis.Do(t.Context(), "ACL", "SETUSER", "weak", "on", ">secret", "~*", "+time").Err())
	for user, word := range map[string]string{"": "NOAUTH", "nobody:wrong@": "WRONGPASS", "weak:secret@": "NOPERM"} {
		b := setupOn(t, "redis://"+user+server.Addr()+"/0")
		_, err := b.cache.Backlogs(t.Context())
		require.Equal(t, word, cache.Denial(err), "%v", err)
		backlog, err := b.cache.Backlog(t.Context())
		require.Equal(t, word, cache.Denial(err), "%+v", backlog)
		_, err = b.cache.Overdue(t.Context(), 0)
		require.Equal(t, word, cache.Denial(err))
	}
	require.Empty(t, cache.Denial(nil))
}
