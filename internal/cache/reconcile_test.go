package cache_test

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
)

// put writes an entry by hand. NOW in its text stands for the open epoch of its shard; lineages with small numbers are from before the last
// restart.
func (b *testBundle) put(t *testing.T, key counter.Key, text string) {
	t.Helper()
	b.token(t, key)
	open := b.meta(t, key)["open"]
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey(key), strings.ReplaceAll(text, "NOW", open), 0).Err())
	require.NoError(t, b.redis.SAdd(t.Context(), b.tag(key)+":open", string(key)).Err())
}

// row returns a row of Postgres.
func row(value, version, lineage int64) counter.Row {
	return counter.Row{Key: "k", Value: value, Version: version, Lineage: lineage}
}

func tombstone(version, lineage int64) counter.Row {
	return counter.Row{Key: "k", Version: version, Lineage: lineage, Deleted: true}
}

func TestRebaseAddsWritesThatTheRowLacks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		entry string
		row   counter.Row
		want  string
	}{
		"increments":                               {"5 2 NOW:u b0 w0", row(100, 10, 3), "105 12 NOW b10 w100"},
		"increments, on a row without lineage":     {"5 2 NOW:u b0 w0", row(100, 10, 0), "105 12 NOW b10 w100"},
		"increments, on a tombstone":               {"5 2 NOW:u b0 w0", tombstone(10, 3), "5 12 NOW b10 w0"},
		"a set":                                    {"7 3 NOW:s b0", row(100, 10, 3), "7 13 NOW b10"},
		"a delete":                                 {"0 1 NOW:xs b0", row(100, 10, 3), "0 11 NOW:x b10"},
		"set aside":                                {"5 2 NOW:ua b0 w0", row(100, 10, 3), "105 12 NOW:a b10 w100"},
		"its own row: a copy came back":            {"5 2 NOW:u b0 w0", row(105, 12, -1), "105 12 NOW b12 w105"},
		"ended, the row does not have it":          {"5 2 4:u b0 w0", row(100, 10, 3), "105 12 4 b10 w100"},
		"ended, the row is it":                     {"5 2 4:u b0 w0", row(105, 12, 4), "105 12 4 b12 w105"},
		"ended, the row went on from it":           {"5 2 4:u b0 w0", row(110, 15, 6), "110 15 4 b15 w110"},
		"ended, the row was deleted after it":      {"5 2 4:u b0 w0", tombstone(15, 6), "0 15 4:x b15 w0"},
		"ended and set, the row does not have it":  {"7 2 4:s b0", row(100, 10, 3), "7 12 4 b10"},
		"ended and set, the row is it":             {"7 2 4:s b0", row(7, 12, 4), "7 12 4 b12 w7"},
		"ended and deleted, the row went on":       {"0 2 4:xs b0", row(3, 13, 6), "3 13 4 b13 w3"},
		"went on, the row does not have the ended": {"8 3 NOW:u b0 w0 p;4,5,2", row(100, 10, 3), "108 13 NOW b10 w100 p;4,105,12"},
		"went on, the row is the ended":            {"8 3 NOW:u b0 w0 p;4,5,2", row(105, 12, 4), "108 13 NOW b12 w105"},
		"went on, the row did too":                 {"8 3 NOW:u b0 w0 p;4,5,2", row(200, 20, 6), "203 21 NOW b20 w200"},
		"went on, the row was deleted":             {"8 3 NOW:u b0 w0 p;4,5,2", tombstone(20, 6), "3 21 NOW b20 w0"},
		"set before it went on, the row is that":   {"9 3 NOW:s b0 p;4,7,2", row(7, 12, 4), "9 13 NOW b12 w7"},
		"set before it went on, the row did too":   {"9 3 NOW:s b0 p;4,7,2", row(50, 20, 6), "52 21 NOW b20 w50"},
		"set before it went on, the row is older":  {"9 3 NOW:s b0 p;4,7,2", row(100, 10, 3), "9 13 NOW b10 p;4,7,12"},
		"went on and was set, the row is older":    {"9 4 NOW:s b0 p;4,set,2", row(100, 10, 3), "9 14 NOW b10 p;4,set,12"},
		"went on and was set, the row has the end": {"9 4 NOW:s b0 p;4,set,2", row(105, 12, 4), "9 14 NOW b12"},
		"two ended, the row has none":              {"10 5 NOW:u b0 w0 p;4,5,2;6,7,3", row(100, 10, 3), "110 15 NOW b10 w100 p;4,105,12;6,107,13"},
		"two ended, the row has the first":         {"10 5 NOW:u b0 w0 p;4,5,2;6,7,3", row(105, 12, 5), "110 15 NOW b12 w105 p;6,107,13"},
		"two ended, the row has both":              {"10 5 NOW:u b0 w0 p;4,5,2;6,7,3", row(107, 13, 6), "110 15 NOW b13 w107"},
		"ended twice, the row has the first":       {"7 3 6:u b0 w0 p;4,5,2", row(105, 12, 4), "107 13 6 b12 w105"},
		"ended twice, the row has none":            {"7 3 6:u b0 w0 p;4,5,2", row(100, 10, 3), "107 13 6 b10 w100 p;4,105,12"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.put(t, "k", c.entry)
			open := b.meta(t, "k")["open"]
			if c.row.Lineage < 0 {
				c.row.Lineage = number36(t, open)
			}
			done, rebased, err := b.cache.Rebase(t.Context(), []cache.Base{{Key: "k", Row: c.row, Found: true, Token: b.token(t, "k")}})
			require.NoError(t, err)
			require.Equal(t, []cache.Hydration{cache.Hydrated}, done)
			require.Equal(t, strings.ReplaceAll(c.want, "NOW", open), b.text(t, "k"))
			require.Equal(t, []cache.Entry{b.read(t, "k")}, rebased)
			require.Equal(t, time.Duration(-1), b.redis.PTTL(t.Context(), b.entryKey("k")).Val())
			require.Equal(t, open, b.meta(t, "k")["open"], "rebasing does not change its epoch")
		})
	}
}

func TestRebaseThatOverflowsChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for text, r := range map[string]counter.Row{
		"9223372036854775807 2 NOW:u b0 w0": row(1, 10, 3),
		"1 2 NOW:s b0":                      row(1, math.MaxInt64-1, 3),
		"-5 3 NOW:u b0 w0 p;4,-2,2":         row(math.MinInt64+2, 12, 4),
	} {
		b.put(t, "k", text)
		before := b.text(t, "k")
		b.hydrate(t, cache.Base{Key: "k", Row: r, Found: true}, cache.BaseOverflow)
		require.Equal(t, before, b.text(t, "k"))
	}
}

// The row has writes that Redis lost: later writes to Redis are added to the row.
func TestMergeAddsWritesThatTheRowLacks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		entry string
		row   counter.Row
		want  string
	}{
		"written since":                             {"12 11 NOW b10 w10", row(30, 15, 4), "32 16 NEW b15 w30"},
		"written since, downwards":                  {"8 11 NOW b10 w10", row(-30, 15, 4), "-32 16 NEW b15 w-30"},
		"written since, on a tombstone":             {"12 11 NOW b10 w10", tombstone(15, 4), "2 16 NEW b15 w0"},
		"set since":                                 {"7 12 NOW b10", row(30, 15, 4), "7 17 NEW b15"},
		"deleted since":                             {"0 12 NOW:x b10", row(30, 15, 4), "0 17 NEW:x b15"},
		"ended, the row does not have it":           {"15 12 4 b10 w10", row(30, 11, 3), "35 13 NEW b11 w30 p;4,35,13"},
		"ended and set, the row does not have it":   {"15 12 4 b10", row(30, 11, 3), "15 13 NEW b11 p;4,15,13"},
		"ended, the row went on from it":            {"15 12 4 b10 w10", row(40, 20, 6), "40 20 NEW b20 w40"},
		"ended, the row was deleted after it":       {"15 12 4 b10 w10", tombstone(20, 6), "0 20 NEW:x b20 w0"},
		"ended and deleted, the row went on":        {"0 12 4:x b10", row(40, 20, 6), "40 20 NEW b20 w40"},
		"ended, the row is it before its end":       {"15 12 4 b10 w10", row(13, 11, 4), "15 12 NEW b11 w13 p;4,15,12"},
		"ended and set, the row is it before":       {"15 12 4 b10", row(13, 11, 4), "15 12 NEW b11 p;4,15,12"},
		"went on, the row does not have the ended":  {"17 14 NOW b10 w10 p;4,15,12", row(30, 11, 3), "37 15 NEW b11 w30 p;4,35,13"},
		"went on, the row is the ended":             {"17 14 NOW b10 w10 p;4,15,12", row(15, 12, 4), "17 14 NEW b12 w15"},
		"went on, the row did too":                  {"17 14 NOW b10 w10 p;4,15,12", row(40, 20, 6), "42 22 NEW b20 w40"},
		"went on, the row is the ended before":      {"17 14 NOW b10 w10 p;4,15,12", row(13, 11, 4), "17 14 NEW b11 w13 p;4,15,12"},
		"went on and was set, the row is the ended": {"8 14 NOW b10 p;4,set,12", row(15, 12, 4), "8 14 NEW b12"},
		"went on and was set, the row is older":     {"8 14 NOW b10 p;4,set,12", row(30, 11, 3), "8 15 NEW b11 p;4,set,13"},
		"set before it went on, the row did too":    {"9 13 NOW b10 p;4,7,12", row(50, 20, 6), "52 21 NEW b20 w50"},
		"set before it went on, the row is older":   {"9 13 NOW b10 p;4,7,12", row(30, 11, 3), "9 14 NEW b11 p;4,7,13"},
		"two ended, the row has the first":          {"20 15 NOW b10 w10 p;4,12,11;6,15,13", row(30, 12, 5), "38 16 NEW b12 w30 p;6,33,14"},
		"two ended, the row has none":               {"20 15 NOW b10 w10 p;4,12,11;6,15,13", row(30, 11, 3), "40 16 NEW b11 w30 p;4,32,12;6,35,14"},
		"two ended, the row has both":               {"20 15 NOW b10 w10 p;4,12,11;6,15,13", row(30, 20, 7), "35 22 NEW b20 w30"},
		"set aside":                                 {"12 11 NOW:a b10 w10", row(30, 15, 4), "32 16 NEW:a b15 w30"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.put(t, "k", c.entry)
			if strings.Contains(c.entry, ":a") {
				require.NoError(t, b.redis.Del(t.Context(), b.tag("k")+":open").Err())
				require.NoError(t, b.redis.ZAdd(t.Context(), b.tag("k")+":retry", redisZ("k", 1)).Err())
			} else {
				b.seal(t, "k") // the conflict was found by a flush
			}
			before := b.meta(t, "k")["open"]
			read := b.read(t, "k")

			b.reconcile(t, cache.Conflict{Entry: read, Row: c.row}, cache.Reconciled)

			open := b.meta(t, "k")["open"]
			require.Greater(t, number36(t, open), number36(t, before), "the merged entry begins a new lineage")
			require.Equal(t, strings.ReplaceAll(c.want, "NEW", open), b.text(t, "k"))
			require.True(t, b.dirty(t, "k"))
			require.Equal(t, !read.Aside, b.redis.SIsMember(t.Context(), b.tag("k")+":open", "k").Val())
			b.reconcile(t, cache.Conflict{Entry: read, Row: c.row}, cache.Superseded)
			merged := b.read(t, "k")
			_, kept := postgres{"k": c.row}.upsert(merged.Row)
			require.False(t, kept, "the next flush succeeds")
		})
	}
}

func TestMergeThatOverflowsChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for text, r := range map[string]counter.Row{
		"12 11 NOW b10 w10":        row(math.MaxInt64, 15, 4),
		"-12 11 NOW b10 w10":       row(math.MinInt64, 15, 4),
		"12 12 NOW b10 w10":        row(1, math.MaxInt64-1, 4),
		"9 14 NOW b10 w9 p;4,1,12": row(math.MaxInt64-7, 20, 6),
	} {
		b.put(t, "k", text)
		before, meta := b.text(t, "k"), b.meta(t, "k")
		b.reconcile(t, cache.Conflict{Entry: b.read(t, "k"), Row: r}, cache.ConflictOverflow)
		require.Equal(t, before, b.text(t, "k"))
		require.Equal(t, meta, b.meta(t, "k"))
	}
}

func TestChangedEntryIsNotReconciled(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, b *testBundle){
		"it has another lineage": func(t *testing.T, b *testBundle) {
			t.Helper()
			b.put(t, "k", "12 11 NOW b10 w10")
		},
		"it has another base": func(t *testing.T, b *testBundle) {
			t.Helper()
			b.put(t, "k", "12 11 4 b9 w10")
		},
		"its base is unknown": func(t *testing.T, b *testBundle) {
			t.Helper()
			b.put(t, "k", "12 11 4:u b10 w10")
		},
		"it is gone": func(t *testing.T, b *testBundle) {
			t.Helper()
			require.NoError(t, b.redis.Del(t.Context(), b.entryKey("k")).Err())
		},
		"it is no entry": func(t *testing.T, b *testBundle) {
			t.Helper()
			b.put(t, "k", "x")
		},
		"it is no string": func(t *testing.T, b *testBundle) {
			t.Helper()
			require.NoError(t, b.redis.Del(t.Context(), b.entryKey("k")).Err())
			require.NoError(t, b.redis.HSet(t.Context(), b.entryKey("k"), "v", "1").Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, adopt := range []bool{false, true} {
				b := setup(t)
				b.put(t, "k", "12 11 4 b10 w10")
				read := b.read(t, "k")
				change(t, b)
				before := b.contents(t)
				b.reconcile(t, cache.Conflict{Entry: read, Row: row(30, 15, 4), Adopt: adopt}, cache.Superseded)
				require.Equal(t, before, b.contents(t))
			}
		})
	}
}

func TestAdoptReplacesTheEntryByTheRow(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]counter.Row{"row": row(20, 14, 4), "tombstone": tombstone(14, 4)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.put(t, "k", "12 11 4 b10 w10")
			read := b.read(t, "k")
			b.seal(t, "k")
			b.do(t, get("k"))
			b.setAside(t, time.Hour, "k")
			require.NoError(t, b.redis.SAdd(t.Context(), b.tag("k")+":open", "k").Err())
			open := b.meta(t, "k")["open"]

			b.reconcile(t, cache.Conflict{Entry: read, Row: r, Adopt: true}, cache.Reconciled)

			want := map[string]string{"v": strconv.FormatInt(r.Value, 10), "n": "14", "e": "0"}
			if r.Deleted {
				want["x"] = "1"
			}
			require.Equal(t, want, b.whole(t, "k"))
			require.Empty(t, b.in(t, "k"))
			require.False(t, b.dirty(t, "k"))
			require.Greater(t, b.redis.PTTL(t.Context(), b.entryKey("k")).Val(), 59*time.Minute)
			require.Greater(t, number36(t, b.meta(t, "k")["open"]), number36(t, open), "its next lineage needs another number")
			b.reconcile(t, cache.Conflict{Entry: read, Row: r, Adopt: true}, cache.Superseded)
		})
	}
}

func TestRowThatIsNotAheadIsNotAdopted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, "k", "12 11 4 b10 w10")
	for _, version := range []int64{10, 11} {
		b.reconcile(t, cache.Conflict{Entry: b.read(t, "k"), Row: row(20, version, 4), Adopt: true}, cache.Superseded)
		require.Equal(t, "12 11 4 b10 w10", b.text(t, "k"))
	}
}

func TestSeveralEntriesAreReconciledInOneCall(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(cache.MaxConflicts)
	conflicts := make([]cache.Conflict, len(keys))
	for i, key := range keys {
		b.put(t, key, "12 11 NOW b10 w10")
		conflicts[i] = cache.Conflict{Entry: b.read(t, key), Row: counter.Row{Key: key, Value: int64(i), Version: 15, Lineage: 4}}
	}
	conflicts[1].Row.Value = math.MaxInt64
	conflicts[2].Entry.Base = 9
	got, err := b.cache.Reconcile(t.Context(), 1, conflicts)
	require.NoError(t, err)
	require.Equal(t, []cache.Reconciliation{cache.Reconciled, cache.ConflictOverflow, cache.Superseded, cache.Reconciled}, got[:4])
	require.Equal(t, "2", b.entry(t, keys[0])["v"])
	require.Equal(t, "12", b.entry(t, keys[1])["v"])
	require.Equal(t, "12", b.entry(t, keys[2])["v"])
	require.Equal(t, strconv.Itoa(len(keys)+1), b.entry(t, keys[len(keys)-1])["v"])
}
