package cache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// unaccepted sends operations in one call, and accepts no unchecked entry.
func (b *testBundle) unaccepted(t *testing.T, ops ...counter.Operation) []cache.Outcome {
	t.Helper()
	writes := make([]cache.Write, len(ops))
	for i, op := range ops {
		writes[i].Operation = op
	}
	return b.writer.Do(t.Context(), writes)
}

// unchecked returns the token of an unchecked entry.
func (b *testBundle) unchecked(t *testing.T, key counter.Key) string {
	t.Helper()
	o := b.unaccepted(t, get(key))[0]
	require.True(t, o.Cold && o.Unchecked, "%+v", o)
	return o.Token
}

// check checks one entry.
func (b *testBundle) check(t *testing.T, base cache.Base, want cache.Hydration) {
	t.Helper()
	base.Row.Key = base.Key
	got, err := b.cache.Check(t.Context(), []cache.Base{base})
	require.NoError(t, err)
	require.Equal(t, []cache.Hydration{want}, got)
}

// restarted returns a Redis that was restarted, with a clean entry: value 100, version 1.
func restarted(t *testing.T) *testBundle {
	t.Helper()
	b := setup(t)
	b.warm(t, "k")
	b.do(t, set("k", 100))
	b.drain(t, postgres{})
	b.restart(t)
	return b
}

func TestUncheckedEntryIsUsedOnlyAfterItsCheck(t *testing.T) {
	t.Parallel()
	exists := counter.Unconditional()
	exists.Exists = true
	for name, c := range map[string]struct {
		op   counter.Operation
		want int64
	}{
		"get":       {get("k"), 105},
		"increment": {increment("k", 1), 106},
		"set":       {set("k", 7), 7},
		"delete":    {del("k"), 0},
		"condition": {counter.Operation{Key: "k", Kind: counter.Increment, Amount: 1, Condition: &exists}, 106},
		"ID":        {counter.Operation{Key: "k", Kind: counter.Increment, Amount: 1, ID: "id"}, 106},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := restarted(t)
			before := b.text(t, "k")
			o := b.unaccepted(t, c.op)[0]
			require.True(t, o.Cold && o.Unchecked, "%+v", o)
			require.Equal(t, before, b.text(t, "k"))

			b.check(t, cache.Base{Key: "k", Row: row(105, 6, 0), Found: true, Token: o.Token}, cache.Renewed)

			require.Equal(t, b.checked(t, "k", map[string]string{"v": "105", "n": "6"}), b.whole(t, "k"))
			require.Greater(t, b.redis.PTTL(t.Context(), b.entryKey("k")).Val(), 59*time.Minute)
			for range 2 {
				o = b.unaccepted(t, c.op)[0]
				require.NoError(t, o.Err)
				require.False(t, o.Cold, "it is checked once")
			}
			if c.op.Kind != counter.Increment || c.op.ID != "" {
				require.Equal(t, c.want, o.Value)
			} else {
				require.Equal(t, c.want+1, o.Value)
			}
		})
	}
}

func TestCheckNeverMakesAnEntryOlder(t *testing.T) {
	t.Parallel()
	for name, base := range map[string]cache.Base{
		"an older row":          {Row: row(99, 0, 0), Found: true},
		"the same row":          {Row: row(100, 1, 0), Found: true},
		"an older tombstone":    {Row: counter.Row{Deleted: true}, Found: true},
		"no row":                {},
		"another value by hand": {Row: row(101, 1, 0), Found: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := restarted(t)
			base.Key, base.Token = "k", b.unchecked(t, "k")
			b.check(t, base, cache.Hydrated)
			o := b.unaccepted(t, get("k"))[0]
			require.Equal(t, cache.Outcome{Value: 100, Version: 1, Exists: true, Known: true, Synced: true}, bare(o))
		})
	}
}

func TestCheckTakesALaterTombstone(t *testing.T) {
	t.Parallel()
	b := restarted(t)
	b.check(t, cache.Base{Key: "k", Row: counter.Row{Version: 2, Deleted: true}, Found: true, Token: b.unchecked(t, "k")}, cache.Renewed)
	o := b.unaccepted(t, get("k"))[0]
	require.Equal(t, cache.Outcome{Version: 2, Known: true, Synced: true}, bare(o))
}

// The row was read before Redis was restarted again, and so perhaps before the flush of writes that Redis has lost since.
func TestCheckOfAnotherIncarnationIsStale(t *testing.T) {
	t.Parallel()
	b := restarted(t)
	base := cache.Base{Key: "k", Row: row(105, 6, 0), Found: true, Token: b.unchecked(t, "k")}
	b.restart(t)
	b.check(t, base, cache.Stale)
	require.Equal(t, "100", b.entry(t, "k")["v"])
	base.Token = b.unchecked(t, "k")
	b.check(t, base, cache.Renewed)
}

// After a restart the first call to a shard may be a read: it notes the incarnation, so that the checks of all calls name the same.
func TestFirstReadAfterARestartNotesTheIncarnation(t *testing.T) {
	t.Parallel()
	b := restarted(t)
	first := b.unchecked(t, "k")
	require.Equal(t, first, b.meta(t, "k")["first"])
	require.Equal(t, first, b.unchecked(t, "k"))
	b.check(t, cache.Base{Key: "k", Token: first}, cache.Hydrated)
}

// An operation that was accepted without a check made the entry dirty: its flush compares it with the row.
func TestCheckLeavesDirtyEntriesAlone(t *testing.T) {
	t.Parallel()
	b := restarted(t)
	token := b.unchecked(t, "k")
	b.blind(t, increment("k", 1))
	before := b.text(t, "k")
	b.check(t, cache.Base{Key: "k", Row: row(105, 6, 0), Found: true, Token: token}, cache.Hydrated)
	require.Equal(t, before, b.text(t, "k"))
	require.False(t, b.unaccepted(t, get("k"))[0].Cold)
}

func TestOnlyEntriesFromBeforeTheRestartAreUnchecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(6)
	old, written, dirty, now, missing, previous := keys[0], keys[1], keys[2], keys[3], keys[4], keys[5]
	b.warm(t, old, written, dirty)
	b.do(t, increment(written, 1))
	b.drain(t, postgres{})
	b.do(t, increment(dirty, 1))
	for _, key := range []counter.Key{old, written, dirty} {
		require.False(t, b.unaccepted(t, get(key))[0].Cold, "without a restart nothing is unchecked")
	}
	b.restart(t)
	b.hydrate(t, cache.Base{Key: now}, cache.Hydrated)
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey(previous), "7 1 0", 0).Err()) // hydrated by the version before this one
	unchecked := make(map[counter.Key]bool)
	for i, o := range b.unaccepted(t, get(old), get(written), get(dirty), get(now), get(missing), get(previous)) {
		require.NoError(t, o.Err)
		unchecked[keys[i]] = o.Unchecked
	}
	require.Equal(t, map[counter.Key]bool{
		old: true, written: true, dirty: false, now: false, missing: false, previous: true,
	}, unchecked)

	b.do(t, increment(dirty, 1))
	b.drain(t, postgres{})
	require.False(t, b.unaccepted(t, get(dirty))[0].Cold, "it was flushed in this incarnation")
}

func TestAcceptedReadOfAnUncheckedEntryChangesNothing(t *testing.T) {
	t.Parallel()
	b := restarted(t)
	b.unchecked(t, "k")
	before := b.contents(t)
	require.Equal(t, int64(100), b.do(t, get("k"))[0].Value)
	require.Equal(t, before, b.contents(t))
	b.unchecked(t, "k")
}

func TestAcceptedOperationWithAnIDIsReplayed(t *testing.T) {
	t.Parallel()
	b := restarted(t)
	op := counter.Operation{Key: "k", Kind: counter.Increment, Amount: 1, ID: "id"}
	accepted := b.writer.Do(t.Context(), []cache.Write{{Operation: op, Accept: true}})[0]
	require.Equal(t, int64(101), accepted.Value)
	for _, accept := range []bool{false, true} {
		o := b.writer.Do(t.Context(), []cache.Write{{Operation: op, Accept: accept}})[0]
		require.NoError(t, o.Err)
		require.True(t, o.Replayed)
		require.Equal(t, int64(101), o.Value)
	}
}

// A set-aside entry from before the restart may have been flushed and written again, in the time that Redis has lost.
func TestSettledEntryFromBeforeARestartIsUnchecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 5))
	b.setAside(t, time.Minute, "a")
	b.restart(t)
	b.token(t, "a")
	b.settle(t, b.read(t, "a"))
	b.unchecked(t, "a")
}

func TestFullRedisChecksEntries(t *testing.T) {
	t.Parallel()
	b := setupOn(t, localtest.OwnRedis(t, local.RedisOptions{}).URL())
	b.warm(t, "k")
	b.do(t, set("k", 100))
	b.drain(t, postgres{})
	b.restart(t)
	b.fill(t)
	base := cache.Base{Key: "k", Row: row(105, 6, 0), Found: true, Token: b.unchecked(t, "k")}
	b.check(t, base, cache.Stale) // the read could not note the incarnation
	base.Token = b.unchecked(t, "k")
	b.check(t, base, cache.Renewed)
	require.Equal(t, int64(105), b.unaccepted(t, get("k"))[0].Value)
}
