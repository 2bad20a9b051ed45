package convert_test

import (
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/worker"
)

// shardCounts are the new numbers for the 64 shards of the fixture: the default, the same, 1, and one for which no new shard has
// exactly the keys of an old one.
var shardCounts = []int{16, 64, 1, 100}

// stranded is a key without its dirty mark: the previous version would not have flushed it.
const stranded = "page:15"

// system is a Redis that was converted, and the Postgres of the previous version.
type system struct {
	*testBundle

	cache  *cache.Cache
	writer *cache.Writer
	store  *store.Store
	worker *worker.Worker
}

func migrate(url string) error { return store.MigrateURL(testContext, url) }

// system starts a store, a worker and a writer after the conversion.
func (b *testBundle) system(t *testing.T, c *cache.Cache) *system {
	t.Helper()
	log := slog.New(slog.NewTextHandler(b.log, nil))
	postgres, err := store.Open(localtest.PostgresURL(t, migrate), store.Options{Logger: log, MaxConns: 4})
	require.NoError(t, err)
	t.Cleanup(func() { _ = postgres.Close() })
	rows := make([]counter.Row, len(b.Rows))
	for i, r := range b.Rows {
		rows[i] = r.row()
	}
	_, err = postgres.Upsert(t.Context(), rows)
	require.NoError(t, err)
	settings, err := config.FromMap(nil)
	require.NoError(t, err)
	w := worker.New(worker.Options{
		Config: settings, Redis: b.redis, Cache: c, Store: postgres, Registerer: prometheus.NewRegistry(), Logger: log,
	})
	writer := c.NewWriter(func() bool { return true })
	t.Cleanup(writer.Close)
	return &system{testBundle: b, cache: c, writer: writer, store: postgres, worker: w}
}

// do carries out an operation like the api: it hydrates a cold key, checks an unchecked one, or writes blind.
func (s *system) do(t *testing.T, op counter.Operation, blind bool) cache.Outcome {
	t.Helper()
	for range 3 {
		o := s.writer.Do(t.Context(), []cache.Write{{Operation: op, Blind: blind}})[0]
		if !o.Cold {
			return o
		}
		rows, err := s.store.Read(t.Context(), []counter.Key{op.Key})
		require.NoError(t, err)
		row, found := rows[op.Key]
		fill := s.cache.Hydrate
		if o.Unchecked {
			fill = s.cache.Check
		}
		_, err = fill(t.Context(), []cache.Base{{Key: op.Key, Token: o.Token, Row: row, Found: found}})
		require.NoError(t, err)
	}
	require.Fail(t, "it stays cold", op.Key)
	return cache.Outcome{}
}

// flush flushes all dirty counters that are not set aside.
func (s *system) flush(t *testing.T) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) {
		_, _, err := s.worker.DrainAll(t.Context(), "test")
		require.NoError(t, err)
		backlog, err := s.cache.Backlogs(t.Context())
		require.NoError(t, err)
		due := int64(0)
		for _, shard := range backlog {
			due += shard.Dirty - shard.Retrying
		}
		return due == 0, strconv.FormatInt(due, 10) + " are dirty"
	})
}

// rows returns the rows of keys, without lineage and base.
func (s *system) rows(t *testing.T, keys []counter.Key) map[counter.Key]row {
	t.Helper()
	found, err := s.store.Read(t.Context(), keys)
	require.NoError(t, err)
	rows := make(map[counter.Key]row)
	for key, r := range found {
		rows[key] = row{Key: key, Value: r.Value, Version: r.Version, Deleted: r.Deleted}
	}
	return rows
}

// expected returns the rows after the previous version would have flushed everything.
func (f *fixture) expected() map[counter.Key]row {
	rows := make(map[counter.Key]row)
	for _, r := range f.After {
		r.Lineage, r.Base = 0, 0
		if r.Key == stranded {
			r.Value, r.Version = r.Value+15, r.Version+1
		}
		rows[r.Key] = r
	}
	return rows
}

func TestEveryCounterReadsAsBefore(t *testing.T) {
	t.Parallel()
	for _, shards := range shardCounts {
		t.Run(strconv.Itoa(shards), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.system(t, b.convert(t, shards))
			require.Len(t, b.Answers, 60)
			for key, want := range b.Answers {
				got := s.do(t, counter.Operation{Key: counter.Key(key), Kind: counter.Get}, false)
				switch want.Status {
				case 200:
					require.NoError(t, got.Err, key)
					require.Equal(t, want, answer{200, got.Value, got.Version, got.Synced}, key)
				case 404:
					require.NoError(t, got.Err, key)
					require.False(t, got.Exists, key)
				default:
					require.Equal(t, counter.CodeInternal, counter.CodeOf(got.Err), key)
				}
			}
		})
	}
}

func TestARepeatedRequestGetsTheRecordedAnswer(t *testing.T) {
	t.Parallel()
	kinds := map[string]counter.Kind{"increment": counter.Increment, "set": counter.Set, "delete": counter.Delete}
	for _, shards := range shardCounts {
		t.Run(strconv.Itoa(shards), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.system(t, b.convert(t, shards))
			require.NotEmpty(t, b.Replays)
			for _, r := range b.Replays {
				op := counter.Operation{Key: r.Key, Kind: kinds[r.Op], Amount: r.Amount, ID: r.ID}
				got := s.do(t, op, true)
				require.NoError(t, got.Err)
				require.True(t, got.Replayed, r.ID)
				require.Equal(t, r.Answer.Status == 202, !got.Known, r.ID)
				if r.Answer.Status == 200 {
					require.Equal(t, answer{200, got.Value, got.Version, got.Synced}, r.Answer)
				}
				op.Kind, op.Amount = counter.Increment, 12345
				require.Equal(t, counter.CodeIdempotencyKeyReused, counter.CodeOf(s.do(t, op, true).Err))
			}
		})
	}
}

func TestDirtyCountersReachPostgres(t *testing.T) {
	t.Parallel()
	for _, shards := range shardCounts {
		t.Run(strconv.Itoa(shards), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.system(t, b.convert(t, shards))
			s.flush(t)
			want := b.expected()
			require.Equal(t, want, s.rows(t, slices.Collect(maps.Keys(want))))
			// Keys that were set aside still are.
			require.Empty(t, s.rows(t, []counter.Key{"refused:dead:1", "refused:dead:2", "refused:parked:1", "refused:parked:2"}))
		})
	}
}

// writeAll changes every counter by one, with blind writes to cold keys, and returns the expected rows.
func (s *system) writeAll(t *testing.T) map[counter.Key]row {
	t.Helper()
	rows := s.expected()
	for key, r := range rows {
		by := int64(1)
		if r.Value > 0 {
			by = -1 // some are as large as they can be
		}
		require.NoError(t, s.do(t, counter.Operation{Key: key, Kind: counter.Increment, Amount: by}, true).Err, key)
		rows[key] = row{Key: key, Value: r.Value + by, Version: r.Version + 1}
	}
	return rows
}

func TestWritesAfterTheConversionAddToThoseBefore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := b.system(t, b.convert(t, 16))
	for range 3 { // each flush begins new lineages
		want := s.writeAll(t)
		s.flush(t)
		got := s.rows(t, slices.Collect(maps.Keys(want)))
		require.Equal(t, want, got)
		s.After = s.After[:0]
		for key, r := range got {
			if key == stranded {
				r.Value, r.Version = r.Value-15, r.Version-1 // expected adds it
			}
			s.After = append(s.After, r)
		}
	}
}

// A worker of the previous version was killed, but Postgres completes its statement after the conversion, with and without a write in
// between.
func TestALateFlushOfThePreviousVersionCountsOnce(t *testing.T) {
	t.Parallel()
	late := func(t *testing.T, s *system) {
		t.Helper()
		var rows []counter.Row
		for _, r := range s.After {
			// The row that the previous version would have made of the entry. It made page:13's out of what Postgres had; and
			// page:14 was marked by hand and has no lineage, so its version, but not its value, may count twice.
			if before, _ := s.row(r.Key); before.Lineage != r.Lineage && r.Key != "page:13" && r.Key != "page:14" {
				rows = append(rows, r.row())
			}
		}
		require.Greater(t, len(rows), 20)
		_, err := s.store.Upsert(t.Context(), rows)
		require.NoError(t, err)
	}
	t.Run("written before it came", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		s := b.system(t, b.convert(t, 16))
		want := s.writeAll(t)
		late(t, s)
		s.flush(t)
		require.Equal(t, want, s.rows(t, slices.Collect(maps.Keys(want))))
	})
	t.Run("written after it came", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		s := b.system(t, b.convert(t, 16))
		late(t, s)
		want := s.writeAll(t)
		s.flush(t)
		require.Equal(t, want, s.rows(t, slices.Collect(maps.Keys(want))))
	})
	t.Run("not written", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		s := b.system(t, b.convert(t, 16))
		late(t, s)
		s.flush(t)
		want := s.expected()
		require.Equal(t, want, s.rows(t, slices.Collect(maps.Keys(want))))
	})
}

func TestKeysThatWereSetAsideStaySetAside(t *testing.T) {
	t.Parallel()
	for _, shards := range shardCounts {
		t.Run(strconv.Itoa(shards), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			s := b.system(t, b.convert(t, shards))
			dead := map[counter.Key]cache.Dead{}
			for shard := range shards {
				require.NoError(t, s.cache.EachDead(t.Context(), counter.Shard(shard), func(notes []cache.Note) error {
					for _, n := range notes {
						require.Equal(t, counter.Shard(shard), s.cache.Shard(n.Key))
						dead[n.Key] = n.Dead
					}
					return nil
				}))
			}
			require.ElementsMatch(t, []counter.Key{"refused:dead:1", "refused:dead:2", "refused:dead:gone", "refused:dead:alien"},
				slices.Collect(maps.Keys(dead)))
			require.Equal(t, 1, dead["refused:dead:1"].Attempts)
			require.Contains(t, dead["refused:dead:1"].Reason, "not this one")
			require.Equal(t, 2026, dead["refused:dead:1"].Since.Year())
			now, err := s.cache.Now(t.Context())
			require.NoError(t, err)
			for _, key := range []counter.Key{"refused:parked:1", "refused:parked:2"} {
				due, err := b.redis.ZScore(t.Context(), "{aw:"+s.cache.Shard(key).String()+"}:retry", string(key)).Result()
				require.NoError(t, err)
				require.InDelta(t, 600, (due-float64(now))/1000, 30, "seconds")
			}

			for key := range dead { // the cause is fixed
				_, err := s.cache.Redrive(t.Context(), s.cache.Shard(key), []counter.Key{key})
				require.NoError(t, err)
			}
			require.NoError(t, s.cache.Requeue(t.Context(), []counter.Key{"refused:parked:1", "refused:parked:2"}))
			s.flush(t)
			require.Equal(t, map[counter.Key]row{
				"refused:dead:1":   {Key: "refused:dead:1", Value: 14, Version: 3},
				"refused:dead:2":   {Key: "refused:dead:2", Value: 3, Version: 1},
				"refused:parked:1": {Key: "refused:parked:1", Value: 19, Version: 3},
				"refused:parked:2": {Key: "refused:parked:2", Version: 2, Deleted: true},
			}, s.rows(t, []counter.Key{"refused:dead:1", "refused:dead:2", "refused:parked:1", "refused:parked:2"}))
		})
	}
}

func TestKeysKeepTheirTTLAndNothingOldIsLeft(t *testing.T) {
	t.Parallel()
	for _, shards := range shardCounts {
		t.Run(strconv.Itoa(shards), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			c := b.convert(t, shards)
			for _, k := range b.Redis {
				_, rest, isShards := strings.Cut(k.Key, "}")
				if !isShards || k.TTL == 0 {
					continue
				}
				key := counter.Key(strings.TrimPrefix(rest, ":c:"))
				if strings.HasPrefix(rest, ":i:") {
					key = counter.Key(rest[strings.Index(rest, "\x00")+1:])
				}
				ttl := b.redis.PTTL(t.Context(), "{aw:"+c.Shard(key).String()+"}"+rest).Val()
				require.InDelta(t, k.TTL, ttl.Milliseconds(), 30_000, k.Key)
			}
			for name := range b.dump(t) {
				require.NotRegexp(t, `:(dirty|gen|drain|conversion)$|^\{aw:meta\}`, name)
				number, _, found := strings.Cut(strings.TrimPrefix(name, "{aw:"), "}")
				require.True(t, found, name)
				shard, err := strconv.Atoi(number)
				require.NoError(t, err)
				require.Less(t, shard, shards)
			}
			noted, err := b.redis.HGetAll(t.Context(), cache.SettingsKey).Result()
			require.NoError(t, err)
			delete(noted, "birth")
			require.Equal(t, map[string]string{"layout": "3", "AFTERWRITE_SHARDS": strconv.Itoa(shards)}, noted)
		})
	}
}

func TestBacklogAfterTheConversion(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c := b.convert(t, 16)
	backlog, err := c.Backlog(t.Context())
	require.NoError(t, err)
	dirty := int64(1) // the stranded one
	for _, k := range b.Redis {
		if k.Type == "zset" {
			dirty += int64(len(parse[map[string]any](t, k.Value)))
		}
	}
	require.EqualValues(t, 4, backlog.Dead)
	require.Equal(t, dirty-backlog.Dead, backlog.Dirty)
	require.Greater(t, backlog.Oldest, 500*time.Millisecond)
	require.Less(t, backlog.Oldest, patience)
}
