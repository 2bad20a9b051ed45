package worker_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
)

// setupMapped returns a bundle whose keys post:N:likes and post:N:views land in a table posts with 1,000 rows.
func setupMapped(t *testing.T, missing string, environment map[string]string) *testBundle {
	t.Helper()
	url := localtest.PostgresURL(t, migrate)
	settings := mapped(t, missing)
	maps.Copy(settings, environment)
	b := setupOn(t, localtest.RedisURL(t), url, settings)
	b.createPosts(t)
	return b
}

func (b *testBundle) createPosts(t *testing.T) {
	t.Helper()
	b.exec(t, `CREATE TABLE public.posts (id bigint PRIMARY KEY, likes integer NOT NULL DEFAULT 0 CONSTRAINT few CHECK (likes < 1000000 OR id < 2),
		views bigint NOT NULL DEFAULT 0)`)
	b.exec(t, `INSERT INTO public.posts (id) SELECT n FROM generate_series(1, 1000) n`)
}

// mapped returns settings with a mapping of likes, and one of views.
func mapped(t *testing.T, missing string) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mappings.yaml")
	text := fmt.Sprintf(`
mappings:
  - {name: likes, key: "post:{id:int}:likes", table: posts, where: {id: "{id}"}, set: likes, missing: %s}
  - {name: views, key: "post:{id:int}:views", table: posts, where: {id: "{id}"}, set: views}
`, missing)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return map[string]string{"AFTERWRITE_MAPPINGS": path}
}

func likes(id int) counter.Key { return counter.Key("post:" + strconv.Itoa(id) + ":likes") }

// column returns one number of a query.
func (b *testBundle) column(t *testing.T, query string, args ...any) (n int64) {
	t.Helper()
	require.NoError(t, b.db.QueryRow(query, args...).Scan(&n))
	return n
}

// sendDrains sends a drain of each shard, as the api does.
func (b *testBundle) sendDrains(t *testing.T) {
	t.Helper()
	for shard := range b.cache.Shards() {
		b.send(t, tasks.Drain(counter.Shard(shard), 0))
	}
}

// agree requires that each column has the value of its row in counters, if both exist.
func (b *testBundle) agree(t *testing.T) {
	t.Helper()
	require.Zero(t, b.column(t, `SELECT count(*) FROM counters c JOIN public.posts p ON c.key = 'post:' || p.id || ':likes' WHERE c.value <> p.likes`))
	require.Zero(t, b.column(t, `SELECT count(*) FROM counters c JOIN public.posts p ON c.key = 'post:' || p.id || ':views' WHERE c.value <> p.views`))
}

// Of 1,000 keys, 3 break a CHECK, 2 do not fit into an integer, 5 have no row, and the row of 1 is locked.
func TestRowsThatCannotBeWrittenDelayOnlyThemselves(t *testing.T) {
	t.Parallel()
	for _, missing := range []string{"ignore", "insert", "dead"} {
		t.Run(missing, func(t *testing.T) {
			t.Parallel()
			b := setupMapped(t, missing, impatient())
			b.exec(t, `DELETE FROM public.posts WHERE id > 995`)
			ops := many(0)
			for id := 1; id <= 1000; id++ {
				ops = append(ops, increment(likes(id), int64(id)))
			}
			for _, id := range []int{100, 500, 900} {
				ops[id-1].Amount = 1_000_000 // breaks the CHECK
			}
			for _, id := range []int{200, 600} {
				ops[id-1].Amount = 3_000_000_000 // does not fit
			}
			dead := []counter.Key{likes(100), likes(500), likes(900), likes(200), likes(600)}
			written := int64(989)
			if missing == "dead" {
				dead = append(dead, likes(996), likes(997), likes(998), likes(999), likes(1000))
			} else {
				written += 5
			}
			lock, err := b.db.Begin()
			require.NoError(t, err)
			t.Cleanup(func() { _ = lock.Rollback() })
			_, err = lock.Exec(`SELECT FROM public.posts WHERE id = 300 FOR UPDATE`)
			require.NoError(t, err)

			b.do(t, ops...)
			b.run(t)
			started := time.Now()
			b.sendDrains(t)
			localtest.Eventually(t, 30*time.Second, func() (bool, string) {
				n := b.column(t, `SELECT count(*) FROM counters`)
				return n == written, fmt.Sprintf("%d rows of %d", n, written)
			})
			t.Logf("the other %d are in postgres after %s", written, time.Since(started).Round(time.Millisecond))
			b.agree(t)
			b.eventuallyDead(t, dead...)
			for key, reason := range map[counter.Key]string{
				likes(100): `violates check constraint "few"`, likes(200): "integer out of range", likes(996): "public.posts (id = 996)",
			} {
				if letter, found, err := b.cache.DeadLetter(t.Context(), key); found {
					require.NoError(t, err)
					require.True(t, strings.HasPrefix(letter.Reason, "mapping likes: "), letter.Reason)
					require.Contains(t, letter.Reason, reason)
				}
			}
			_, found := b.row(t, likes(100))
			require.False(t, found, "counters and the column disagree")
			require.Equal(t, map[string]int64{"ignore": 0, "insert": 5, "dead": 0}[missing],
				b.column(t, `SELECT count(*) FROM public.posts WHERE id > 995 AND likes = id`))

			require.NoError(t, lock.Rollback())
			b.eventuallyRow(t, counter.Row{Key: likes(300), Value: 300, Version: 1})
			require.Equal(t, int64(300), b.column(t, `SELECT likes FROM public.posts WHERE id = 300`))
		})
	}
}

func TestAColdCounterContinuesFromItsColumn(t *testing.T) {
	t.Parallel()
	b := setupMapped(t, "ignore", nil)
	b.exec(t, `UPDATE public.posts SET likes = 1234 WHERE id < 10`)
	require.Equal(t, int64(1235), b.do(t, increment(likes(2), 1))[0].Counter.Value)
	for range 3 { // Postgres is away, or the client does not ask for the value: the worker adds the base
		for _, r := range b.service.Do(t.Context(), []counter.Operation{increment(likes(3), 1)}, writepath.Options{Minimal: true}) {
			require.NoError(t, r.Err)
			require.False(t, r.Counter.Known)
		}
	}
	b.do(t, set(likes(4), 7), del(likes(5)))
	b.clean(t)
	for id, want := range map[int]int64{2: 1235, 3: 1237, 4: 7, 5: 0, 6: 1234} {
		require.Equal(t, want, b.column(t, `SELECT likes FROM public.posts WHERE id = $1`, id), id)
	}
	b.agree(t)
	require.Equal(t, int64(1236), b.do(t, increment(likes(2), 1))[0].Counter.Value)
	require.Equal(t, int64(1), b.do(t, increment(likes(5), 1))[0].Counter.Value)
	b.clean(t)
	b.agree(t)
}

// An api that runs without the mapping starts a counter from 0, and an application may still write the column itself.
func TestTheFirstFlushAddsToAColumnThatChanged(t *testing.T) {
	t.Parallel()
	b := setupMapped(t, "ignore", nil)
	b.exec(t, `UPDATE public.posts SET likes = 1234 WHERE id = 2`)
	without := setupOn(t, b.redisURL, b.postgresURL, nil)
	require.Equal(t, int64(1), without.do(t, increment(likes(2), 1))[0].Counter.Value)
	require.Equal(t, int64(1), b.do(t, increment(likes(3), 1))[0].Counter.Value)
	b.exec(t, `UPDATE public.posts SET likes = likes + 10 WHERE id IN (2, 3)`)
	b.clean(t)
	require.Equal(t, int64(1245), b.column(t, `SELECT likes FROM public.posts WHERE id = 2`))
	require.Equal(t, int64(11), b.column(t, `SELECT likes FROM public.posts WHERE id = 3`))
	require.Equal(t, int64(1246), without.do(t, increment(likes(2), 1))[0].Counter.Value)
	b.clean(t)
	b.agree(t)
	require.Zero(t, metric(t, b, "afterwrite_reconciled_keys_total"), "redis has lost nothing")
}

func TestADroppedColumnStopsOnlyItsOwnCounters(t *testing.T) {
	t.Parallel()
	b := setupMapped(t, "ignore", map[string]string{"AFTERWRITE_SHARDS": "2"})
	b.run(t)
	b.exec(t, `ALTER TABLE public.posts DROP COLUMN likes`)
	for id := 1; id <= 20; id++ {
		b.do(t, increment(likes(id), 1), increment(counter.Key(fmt.Sprintf("post:%d:views", id)), 2), increment(counter.Key(strconv.Itoa(id)), 3))
	}
	b.sendDrains(t)
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		n := b.column(t, `SELECT count(*) FROM counters`)
		return n == 40 && metric(t, b, "afterwrite_mapping_broken") == 1, fmt.Sprintf("%d rows", n)
	})
	require.Equal(t, map[string]string{"likes": "pq: column t.likes does not exist at position 2:47 (42703)"}, b.worker.BrokenMappings())
	require.True(t, b.store.Up())
	require.Zero(t, b.backlog(t).Dead)
	require.Equal(t, int64(40), b.column(t, `SELECT sum(views) FROM public.posts`))

	b.exec(t, `ALTER TABLE public.posts ADD COLUMN likes integer NOT NULL DEFAULT 5`)
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		n := b.column(t, `SELECT count(*) FROM public.posts WHERE likes = 6`)
		return n == 20, fmt.Sprintf("%d columns", n)
	})
	b.eventuallyDrained(t, 10)
	b.agree(t)
	require.Zero(t, metric(t, b, "afterwrite_mapping_broken"))
	require.Empty(t, b.worker.BrokenMappings())
	require.InDelta(t, 40, metric(t, b, "afterwrite_mapping_rows_total"), 0)
}

func TestColumnsAgreeAfterRedisHasLostItsTail(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{})
	settings, url := mapped(t, "ignore"), localtest.PostgresURL(t, migrate)
	b := setupOn(t, server.URL(), url, settings)
	b.createPosts(t)
	for id := 1; id <= 50; id++ {
		b.do(t, increment(likes(id), 1))
	}
	b.clean(t)
	b.do(t, increment(likes(1), 10), increment(likes(51), 1))
	require.NoError(t, b.redis.Save(t.Context()).Err())
	for id := 1; id <= 60; id++ {
		b.do(t, increment(likes(id), 100))
	}
	b.clean(t) // postgres has what redis loses now
	server.Kill()
	require.NoError(t, server.Start(t.Context()))
	b = setupOn(t, server.URL(), url, settings)
	for id := 1; id <= 70; id++ {
		b.do(t, increment(likes(id), 1000))
	}
	b.clean(t)
	b.agree(t)
	for id, want := range map[int]int64{1: 1111, 2: 1101, 51: 1101, 55: 1100, 65: 1000} {
		require.Equal(t, want, b.column(t, `SELECT likes FROM public.posts WHERE id = $1`, id), id)
	}
}

// metric returns the sum of a metric over its labels.
func metric(t *testing.T, b *testBundle, name string) (sum float64) {
	t.Helper()
	families, err := b.registry.Gather()
	require.NoError(t, err)
	count, err := testutil.GatherAndCount(b.registry, name)
	require.NoError(t, err)
	require.Positive(t, count, "there is no metric %s", name)
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// COMMIT does not say which row a deferred constraint refuses, so the worker halves the batch until that row is alone.
func TestOnlyTheRowThatCommitRefusesBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	b := setupMapped(t, "ignore", impatient())
	b.exec(t, `CREATE FUNCTION public.closed() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN IF NEW.id IN (3, 77) THEN RAISE ''post % is closed'', NEW.id USING ERRCODE = ''55000''; END IF; RETURN NEW; END'`)
	b.exec(t, `CREATE CONSTRAINT TRIGGER closed AFTER UPDATE ON public.posts DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION public.closed()`)
	ops := many(0)
	for id := 1; id <= 100; id++ {
		ops = append(ops, increment(likes(id), 1), increment(counter.Key(strconv.Itoa(id)), 1))
	}
	ops = append(ops, increment("post:3:views", 1), increment("post:4:views", 1))
	b.do(t, ops...)
	b.run(t)
	b.sendDrains(t)
	b.eventuallyDead(t, likes(3), likes(77), "post:3:views")
	for key, name := range map[counter.Key]string{likes(3): "likes", likes(77): "likes", "post:3:views": "views"} {
		letter, found, err := b.cache.DeadLetter(t.Context(), key)
		require.NoError(t, err)
		require.True(t, found, key)
		require.True(t, strings.HasPrefix(letter.Reason, "mapping "+name+": "), letter.Reason)
		require.Contains(t, letter.Reason, "is closed")
	}
	require.Equal(t, int64(199), b.column(t, `SELECT count(*) FROM counters`))
	require.Equal(t, int64(98), b.column(t, `SELECT sum(likes) FROM public.posts`))
	b.agree(t)
	require.True(t, b.store.Up())
}

// An application that goes on writing the column keeps the first flush from finding the value that the counter started from.
func TestAColumnThatOthersKeepWriting(t *testing.T) {
	t.Parallel()
	b := setupMapped(t, "ignore", impatient())
	b.run(t)
	b.do(t, increment(likes(2), 1))
	var others int64
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		if b.column(t, `SELECT count(*) FROM counters`) == 1 {
			return true, ""
		}
		b.exec(t, `UPDATE public.posts SET likes = likes + 1 WHERE id = 2`)
		others++
		return false, fmt.Sprintf("it was not flushed, and %d writes of others were", others)
	})
	// The last of these writes may come after the flush: then the next flush overwrites it.
	require.Contains(t, []int64{others, others + 1}, b.column(t, `SELECT value FROM counters`))
}
