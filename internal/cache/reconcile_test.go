package cache_test

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

// put writes an entry by hand. NOW in its text is the open epoch of its shard; every lineage that is a small number is from before
// the last restart.
func (b *testBundle) put(t *testing.T, key counter.Key, text string) {
	t.Helper()
	b.token(t, key)
	open := b.meta(t, key)["open"]
	require.NoError(t, b.redis.Set(t.Context(), b.entryKey(key), strings.ReplaceAll(text, "NOW", open), 0).Err())
	require.NoError(t, b.redis.SAdd(t.Context(), b.tag(key)+":open", string(key)).Err())
}

// row is one that Postgres has.
func row(value, version, lineage int64) counter.Row {
	return counter.Row{Key: "k", Value: value, Version: version, Lineage: lineage}
}

func tombstone(version, lineage int64) counter.Row {
	return counter.Row{Key: "k", Version: version, Lineage: lineage, Deleted: true}
}

func TestRebaseAddsWhatTheRowDoesNotHave(t *testing.T) {
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
			require.Equal(t, open, b.meta(t, "k")["open"], "it stays in the epoch that it is in")
		})
	}
}

func TestRebaseOfARowThatDoesNotAddUpChangesNothing(t *testing.T) {
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

// The row has writes that a Redis lost: what it was given since goes on top of it.
func TestMergePutsWhatTheRowDoesNotHaveOnTopOfIt(t *testing.T) {
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
				b.seal(t, "k") // a flush found out
			}
			before := b.meta(t, "k")["open"]
			read := b.read(t, "k")

			b.reconcile(t, cache.Conflict{Entry: read, Row: c.row}, cache.Reconciled)

			open := b.meta(t, "k")["open"]
			require.Greater(t, number36(t, open), number36(t, before), "the merged entry has a lineage of its own")
			require.Equal(t, strings.ReplaceAll(c.want, "NEW", open), b.text(t, "k"))
			require.True(t, b.dirty(t, "k"))
			require.Equal(t, !read.Aside, b.redis.SIsMember(t.Context(), b.tag("k")+":open", "k").Val())
			b.reconcile(t, cache.Conflict{Entry: read, Row: c.row}, cache.Superseded)
			merged := b.read(t, "k")
			_, kept := postgres{"k": c.row}.upsert(merged.Row)
			require.False(t, kept, "the next flush goes through")
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

func TestAnEntryThatMovedOnIsNotReconciled(t *testing.T) {
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

func TestAdoptMakesTheEntryTheRow(t *testing.T) {
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

func TestARowThatIsNotAheadIsNotAdopted(t *testing.T) {
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

// lostTail is a counter whose Redis loses its tail: it comes back as it was after before, without lost.
type lostTail struct {
	blind   bool                // Postgres has 100 in version 1, Redis nothing, and before is written without asking Postgres
	unsaved bool                // before is not flushed when the snapshot is taken
	again   bool                // what came before is flushed before the lost part is written: that is another lineage
	before  []counter.Operation // with the key "", which stands for the case's own
	lost    []counter.Operation // flushed, and then lost by Redis
	after   []counter.Operation // written to the Redis that came back
	want    counter.Row
}

func lostTails() map[string]lostTail {
	plus := func(n int) []counter.Operation {
		ops := make([]counter.Operation, n)
		for i := range ops {
			ops[i] = increment("", 1)
		}
		return ops
	}
	rows := func(value, version int64) counter.Row { return counter.Row{Value: value, Version: version} }
	deleted := func(version int64) counter.Row { return counter.Row{Version: version, Deleted: true} }
	cases := make(map[string]lostTail)
	for _, unsaved := range []bool{false, true} {
		for _, again := range []bool{false, true} {
			for name, c := range map[string]lostTail{
				"three more":              {lost: plus(5), after: plus(3), want: rows(108, 9)},
				"as many more":            {lost: plus(5), after: plus(5), want: rows(110, 11)},
				"past it":                 {lost: plus(5), after: plus(10), want: rows(115, 16)},
				"the sum by another way":  {lost: plus(5), after: []counter.Operation{increment("", 5)}, want: rows(110, 7)},
				"set":                     {lost: plus(5), after: []counter.Operation{set("", 7), increment("", 1)}, want: rows(8, 8)},
				"more and set":            {lost: plus(5), after: []counter.Operation{increment("", 1), set("", 7)}, want: rows(7, 8)},
				"deleted":                 {lost: plus(5), after: []counter.Operation{del("")}, want: deleted(7)},
				"deleted and more":        {lost: plus(5), after: []counter.Operation{del(""), increment("", 4)}, want: rows(4, 8)},
				"a lost set":              {lost: []counter.Operation{set("", 500)}, after: plus(3), want: rows(503, 5)},
				"a lost delete":           {lost: []counter.Operation{del("")}, after: plus(3), want: rows(3, 5)},
				"nothing lost, three":     {after: plus(3), want: rows(103, 4)},
				"nothing more":            {lost: plus(5), want: rows(105, 6)},
				"nothing more, a delete":  {lost: []counter.Operation{del("")}, want: deleted(2)},
				"nothing more, back":      {lost: []counter.Operation{del(""), increment("", 4)}, want: rows(4, 3)},
				"nothing more, increased": {lost: []counter.Operation{set("", 7)}, want: rows(7, 2)},
			} {
				if c.after == nil && !unsaved {
					continue // it is clean, and not written: nobody looks
				}
				c.before, c.unsaved, c.again = []counter.Operation{set("", 100)}, unsaved, again
				cases[fmt.Sprintf("%s, unsaved %v, flushed between %v", name, unsaved, again)] = c
			}
		}
	}
	for _, again := range []bool{false, true} {
		for name, c := range map[string]lostTail{
			"three more":              {lost: plus(2), after: plus(3), want: rows(110, 1+5+2+3)},
			"past it":                 {lost: plus(2), after: plus(30), want: rows(137, 1+5+2+30)},
			"nothing more":            {lost: plus(2), want: rows(107, 1+5+2)},
			"nothing lost, more":      {after: plus(3), want: rows(108, 1+5+3)},
			"set":                     {lost: plus(2), after: []counter.Operation{set("", 7), increment("", 1)}, want: rows(8, 1+5+2+2)},
			"a lost set":              {lost: []counter.Operation{set("", 50)}, after: plus(3), want: rows(53, 1+5+1+3)},
			"a lost delete, and more": {lost: []counter.Operation{del("")}, after: plus(3), want: rows(3, 1+5+1+3)},
			"a lost delete":           {lost: []counter.Operation{del("")}, want: deleted(1 + 5 + 1)},
		} {
			c.blind, c.unsaved, c.again, c.before = true, true, again, plus(5)
			cases[fmt.Sprintf("blind, %s, flushed between %v", name, again)] = c
		}
	}
	return cases
}

func TestRedisThatLostItsTailLosesOnlyWhatPostgresNeverGot(t *testing.T) {
	t.Parallel()
	for name, c := range lostTails() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, p, key := setup(t), postgres{}, counter.Key("k")
			write := func(ops []counter.Operation) {
				for _, op := range ops {
					op.Key = key
					o := b.send(t, c.blind, []counter.Operation{op})[0]
					require.NoError(t, o.Err)
					require.False(t, o.Cold)
				}
			}
			if c.blind {
				p[key] = counter.Row{Key: key, Value: 100, Version: 1}
			} else {
				b.warm(t, key)
			}
			write(c.before)
			if !c.unsaved {
				b.drain(t, p)
			}
			before := b.snapshot(t)
			if c.again {
				b.drain(t, p)
			}
			write(c.lost)
			b.drain(t, p)
			b.rollback(t, before)
			write(c.after)

			b.drain(t, p)

			c.want.Key, c.want.Lineage = key, p[key].Lineage
			require.Equal(t, c.want, p[key])
			require.False(t, b.dirty(t, key))
			got := b.do(t, get(key))[0]
			require.Equal(t, c.want.Value, got.Value)
			require.Equal(t, c.want.Version, got.Version)
			require.Equal(t, !c.want.Deleted, got.Exists)
			require.True(t, got.Synced)
		})
	}
}

// What Redis wrote after it had lost its tail is not in Postgres yet when it restarts again, without losing anything.
func TestSecondRestartBeforeTheFlushLosesNothingMore(t *testing.T) {
	t.Parallel()
	b, p := setup(t), postgres{}
	b.warm(t, "few", "many", "set", "none")
	b.do(t, set("few", 100), set("many", 100), set("set", 100), set("none", 100))
	b.drain(t, p)
	before := b.snapshot(t)
	b.do(t, increment("few", 5), increment("many", 1), increment("many", 1), increment("many", 3), increment("set", 5))
	b.drain(t, p)
	b.rollback(t, before)
	b.do(t, increment("few", 10), increment("many", 10), set("set", 7), increment("none", 10))
	b.restart(t)
	b.do(t, increment("few", 20), increment("many", 20), increment("set", 20), increment("none", 20))

	b.drain(t, p)

	for key, want := range map[counter.Key]counter.Row{
		"few": {Value: 135, Version: 4}, "many": {Value: 135, Version: 6}, "set": {Value: 27, Version: 4}, "none": {Value: 130, Version: 3},
	} {
		want.Key, want.Lineage = key, p[key].Lineage
		require.Equal(t, want, p[key])
	}
}

// A flush of before the restart may reach Postgres after one of the Redis that came back.
func TestLateFlushOfALostTailDoesNotReplaceWhatCameAfterIt(t *testing.T) {
	t.Parallel()
	b, p := setup(t), postgres{}
	b.warm(t, "a")
	b.do(t, set("a", 100))
	b.drain(t, p)
	before := b.snapshot(t)
	b.do(t, increment("a", 1), increment("a", 1), increment("a", 1))
	late := b.dirtyEntry(t, "a")
	b.rollback(t, before)
	b.do(t, increment("a", 10))
	b.drain(t, p)
	after := p["a"]
	require.Equal(t, int64(110), after.Value)

	_, kept := p.upsert(late.Row)

	require.True(t, kept)
	require.Equal(t, after, p["a"])
}

// Two restarts. The first flush of the merged entry was on its way when Redis lost the merge, and lands after the second merge:
// only the number of the ended lineage, kept through that, tells that the row has it. Without it, its write would count twice.
func TestLateFlushOfAMergedEntryIsNotCountedTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := postgres{"k": {Key: "k", Value: 10, Version: 10, Lineage: 3}}
	b.hydrate(t, cache.Base{Key: "k", Row: p["k"], Found: true}, cache.Hydrated)
	clean := b.snapshot(t)
	b.do(t, increment("k", 5))
	lost := b.dirtyEntry(t, "k")
	b.rollback(t, clean)

	b.do(t, increment("k", 1))
	unmerged := b.snapshot(t)
	_, kept := p.upsert(lost.Row)
	require.False(t, kept)
	b.reconcile(t, cache.Conflict{Entry: b.dirtyEntry(t, "k"), Row: p["k"]}, cache.Reconciled)
	late := b.dirtyEntry(t, "k")
	require.Equal(t, int64(16), late.Value)
	b.rollback(t, unmerged)

	b.do(t, increment("k", 1))
	b.reconcile(t, cache.Conflict{Entry: b.dirtyEntry(t, "k"), Row: p["k"]}, cache.Reconciled)
	require.Equal(t, int64(17), b.dirtyEntry(t, "k").Value)
	require.NotEmpty(t, b.whole(t, "k")["p"], "the ended lineage is kept")
	_, kept = p.upsert(late.Row)
	require.False(t, kept, "the late flush lands")

	b.drain(t, p)

	require.Equal(t, counter.Row{Key: "k", Value: 10 + 5 + 1 + 1, Version: 13, Lineage: p["k"].Lineage}, p["k"])
}

// The same of an entry that had no base until after the second restart.
func TestLateFlushOfARebasedEntryIsNotCountedTwice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	p := postgres{"k": {Key: "k", Value: 10, Version: 10, Lineage: 3}}
	b.blind(t, increment("k", 1))
	blind := b.snapshot(t)
	b.hydrate(t, cache.Base{Key: "k", Row: p["k"], Found: true}, cache.Hydrated)
	late := b.dirtyEntry(t, "k")
	b.rollback(t, blind)

	b.blind(t, increment("k", 5))
	b.hydrate(t, cache.Base{Key: "k", Row: p["k"], Found: true}, cache.Hydrated)
	require.Equal(t, int64(16), b.dirtyEntry(t, "k").Value)
	_, kept := p.upsert(late.Row)
	require.False(t, kept, "the late flush lands")

	b.drain(t, p)

	require.Equal(t, counter.Row{Key: "k", Value: 10 + 1 + 5, Version: 12, Lineage: p["k"].Lineage}, p["k"])
}

func TestFirstWriteAfterARestartOpensANewEpochAndNotesIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(3)
	b.warm(t, keys[:2]...)
	before := b.do(t, increment(keys[0], 1))[0]
	old := b.meta(t, keys[0])
	require.Equal(t, before.First, number36(t, old["first"]))
	b.restart(t)

	after := b.do(t, increment(keys[1], 1))[0]

	meta := b.meta(t, keys[0])
	require.Greater(t, number36(t, meta["open"]), number36(t, old["open"]))
	require.Equal(t, meta["open"], meta["first"])
	require.Equal(t, old["incarnation"], meta["incarnation"], "it is noted")
	require.Equal(t, number36(t, meta["open"]), after.Epoch)
	require.Equal(t, after.Epoch, after.First)
	require.Greater(t, after.First, before.First)
	require.Equal(t, int64(2), after.Backlog, "the keys of before are in it, too")

	again := b.do(t, increment(keys[1], 1))[0]
	require.Equal(t, after.First, again.First)
	require.Equal(t, meta, b.meta(t, keys[0]), "it was the first only")
}

// A read changes nothing, so it cannot note anything either.
func TestAReadAfterARestartChangesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	b.do(t, increment("a", 1))
	b.restart(t)
	before := b.contents(t)
	require.Equal(t, int64(1), b.do(t, get("a"))[0].Value)
	require.Equal(t, before, b.contents(t))
}

func TestADirtyEntryFromBeforeARestartRemembersItsEarlierLives(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "k", Row: counter.Row{Value: 10, Version: 4}, Found: true}, cache.Hydrated)
	b.do(t, increment("k", 1))
	first := b.whole(t, "k")["e"]
	b.restart(t)
	b.do(t, increment("k", 2), increment("k", 3))
	second := b.whole(t, "k")["e"]
	want := map[string]string{"v": "16", "n": "7", "e": second, "b": "4", "w": "10", "p": ";" + first + ",11,5"}
	require.Equal(t, want, b.whole(t, "k"), "the base stays: Postgres may lack what the earlier lineage wrote")
	require.Equal(t, number36(t, second), b.read(t, "k").Lineage)

	b.restart(t)
	b.do(t, increment("k", 1))
	third := b.whole(t, "k")["e"]
	want = map[string]string{"v": "17", "n": "8", "e": third, "b": "4", "w": "10", "p": ";" + first + ",11,5;" + second + ",16,7"}
	require.Equal(t, want, b.whole(t, "k"))

	b.do(t, set("k", 5), increment("k", 1))
	want = map[string]string{"v": "6", "n": "10", "e": third, "b": "4", "p": ";" + first + ",set,5;" + second + ",set,7"}
	require.Equal(t, want, b.whole(t, "k"), "its value does not count from them any more")
	require.True(t, b.dirty(t, "k"))

	b.flush(t, "k")
	b.do(t, increment("k", 1))
	require.Equal(t, map[string]string{"v": "7", "n": "11", "e": b.meta(t, "k")["open"], "b": "10", "w": "6"}, b.whole(t, "k"))
}

func TestACleanEntryFromBeforeARestartBeginsALifeLikeAnyOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.hydrate(t, cache.Base{Key: "k", Row: counter.Row{Value: 10, Version: 4}, Found: true}, cache.Hydrated)
	b.do(t, increment("k", 1))
	b.flush(t, "k")
	b.restart(t)
	require.Equal(t, int64(1), b.do(t, increment("k", 1))[0].Backlog)
	require.Equal(t, map[string]string{"v": "12", "n": "6", "e": b.meta(t, "k")["open"], "b": "5", "w": "11"}, b.whole(t, "k"))
}

func TestASetAsideEntryFromBeforeARestartStaysAside(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	lineage := b.whole(t, "k")["e"]
	b.flushAside(t, "k")
	b.restart(t)
	b.do(t, increment("k", 1))
	require.Equal(t, []string{"retry"}, b.in(t, "k"))
	e := b.whole(t, "k")
	require.Equal(t, ";"+lineage+",1,1", e["p"])
	require.Equal(t, "1", e["a"])
}

// The clock of a promoted replica may be behind: no epoch may be older than one before it.
func TestAClockThatIsBehindDoesNotMakeOlderEpochs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	keys := b.alike(2)
	b.warm(t, keys...)
	b.do(t, increment(keys[0], 1))
	ahead := time.Now().Add(20 * 365 * 24 * time.Hour).UnixMicro()
	b.setMeta(t, keys[0], "open", strconv.FormatInt(ahead, 36))

	require.Equal(t, ahead, b.do(t, increment(keys[1], 1))[0].Epoch)
	e := b.seal(t, keys[0])
	require.Equal(t, ahead, number36(t, b.meta(t, keys[0])["sealed"]))
	require.Equal(t, ahead+1, number36(t, b.meta(t, keys[0])["open"]))
	require.Equal(t, ahead+1, b.do(t, set(keys[1], 3))[0].Epoch)
	require.True(t, b.commit(t, e))
	require.False(t, b.dirty(t, keys[0]))
	require.True(t, b.dirty(t, keys[1]))
	require.Equal(t, int64(2), b.do(t, increment(keys[0], 1))[0].Backlog, "both are in the next")
	require.True(t, b.dirty(t, keys[0]))

	b.restart(t)
	o := b.do(t, increment(keys[0], 1))[0]
	require.Equal(t, ahead+2, o.Epoch)
	require.Equal(t, ahead+2, o.First)
	require.Equal(t, ";"+strconv.FormatInt(ahead+1, 36)+",2,2", b.whole(t, keys[0])["p"])
	b.flush(t, keys[0])
	require.False(t, b.dirty(t, keys[0]) || b.dirty(t, keys[1]))
	require.Equal(t, "3", b.entry(t, keys[1])["v"])
}

func TestARealRestartIsAnotherIncarnation(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	b := setupOn(t, server.URL())
	b.warm(t, "clean", "dirty", "sealed")
	b.do(t, increment("clean", 1))
	b.commitAll(t)
	b.do(t, increment("sealed", 1))
	before := b.seal(t, "sealed")
	first := b.do(t, increment("dirty", 1))[0].First
	lineage := b.whole(t, "dirty")["e"]

	server.Kill()
	require.NoError(t, server.Start(t.Context()))
	b = setupOn(t, server.URL())

	require.True(t, b.dirty(t, "dirty") && b.dirty(t, "sealed") && !b.dirty(t, "clean"))
	require.False(t, b.commit(t, before))
	o := b.do(t, increment("dirty", 1))[0]
	require.Greater(t, o.First, first)
	require.LessOrEqual(t, o.First, o.Epoch)
	require.Equal(t, ";"+lineage+",1,1", b.whole(t, "dirty")["p"])
	p := postgres{}
	b.drain(t, p)
	require.Equal(t, int64(2), p["dirty"].Value)
	require.Equal(t, int64(1), p["sealed"].Value)
	require.False(t, b.dirty(t, "dirty") || b.dirty(t, "sealed"))
}

// A promoted replica goes on with the epochs of its primary, but is another Redis.
func TestAPromotedReplicaIsAnotherIncarnation(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--repl-diskless-sync-delay", "0"}})
	u, err := url.Parse(primary.URL())
	require.NoError(t, err)
	password, _ := u.User.Password()
	replica := localtest.OwnRedis(t, local.RedisOptions{Args: []string{
		"--replicaof", u.Hostname() + " " + u.Port(), "--masterauth", password,
	}})
	a, b := setupOn(t, primary.URL()), setupOn(t, replica.URL())
	// A primary takes another master_replid when its first replica comes.
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return strings.Contains(b.redis.Info(t.Context(), "replication").Val(), "master_link_status:up"), "the replica is not connected yet"
	})
	a.warm(t, "k")
	first := a.do(t, increment("k", 1))[0].First
	e := a.seal(t, "k")
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return b.meta(t, "k")["sealed"] != "", "the replica has no sealed epoch yet"
	})
	require.NoError(t, b.redis.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err())

	require.False(t, b.commit(t, e), "read from the old primary")
	require.Greater(t, b.do(t, increment("k", 1))[0].First, first)
	p := postgres{}
	b.drain(t, p)
	require.Equal(t, int64(2), p["k"].Value)
}

// A clock that was in the next century for a moment must not make entries that cannot be read.
func TestEpochsOfTheNextCenturyAreRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "k")
	b.do(t, increment("k", 1))
	ahead := time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	b.setMeta(t, "k", "open", strconv.FormatInt(ahead, 36))
	for _, op := range []counter.Operation{increment("k", 1), set("k", 7), increment("k", 1), del("k"), increment("k", 3)} {
		require.NoError(t, b.do(t, op)[0].Err)
	}
	require.Equal(t, int64(3), b.do(t, get("k"))[0].Value)
	require.Equal(t, ahead, b.dirtyEntry(t, "k").Epoch)
	b.flush(t, "k")
	require.False(t, b.dirty(t, "k"))
}
