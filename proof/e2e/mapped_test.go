package e2e_test

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/proof/world"
)

// startMapped starts a system whose keys key0, key1 ... land in the table posts. It has a row for each, and likes of them before.
func startMapped(t *testing.T, rows int, likes string, settings ...string) *system {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mappings.yaml")
	require.NoError(t, os.WriteFile(path, []byte(`
mappings:
  - {name: likes, key: "key{id:int}", table: posts, where: {id: "{id}"}, set: likes}
`), 0o600))
	tables := fmt.Sprintf(`CREATE TABLE public.posts (id bigint PRIMARY KEY, likes integer NOT NULL);
		INSERT INTO public.posts SELECT id, %s FROM generate_series(0, %d) id`, likes, rows-1)
	return startWith(t, tables, append(settings, "AFTERWRITE_MAPPINGS="+path)...)
}

// likes returns the column of every post, by the key of its counter.
func (s *system) likes(t *testing.T) map[string]int64 {
	t.Helper()
	found, err := s.DB.Query(`SELECT 'key' || id, likes FROM public.posts`)
	require.NoError(t, err)
	defer func() { require.NoError(t, found.Close()) }()
	columns := make(map[string]int64)
	for found.Next() {
		var key string
		var value int64
		require.NoError(t, found.Scan(&key, &value))
		columns[key] = value
	}
	require.NoError(t, found.Err())
	return columns
}

// Posts have 1,234 likes before. Postgres is away while the first new ones come.
func TestCountersContinueFromTheirColumnsAfterAnOutageOfPostgres(t *testing.T) {
	t.Parallel()
	const posts = 20
	s := startMapped(t, posts, "1234")
	c := s.client()
	defer c.close()
	require.NoError(t, s.world.Postgres.Stop(t.Context()))
	for post := range posts {
		for range post {
			got := c.must(t, http.MethodPost, fmt.Sprintf("/v1/counters/key%d/increment", post), "")
			require.Nil(t, got.Value, "the value is not known without postgres: %+v", got)
		}
	}
	require.NoError(t, s.world.Postgres.Start(t.Context()))
	s.eventuallyClean(t, 30*time.Second)

	localtest.Eventually(t, 20*time.Second, func() (bool, string) { // cold, and the api has to notice that postgres is back
		got, err := c.call(http.MethodGet, "/v1/counters/key0", "")
		return err == nil && got.Value != nil, fmt.Sprintf("%+v %v", got, err)
	})
	columns, rows := s.likes(t), s.rows(t)
	for post := range posts {
		key, want := fmt.Sprintf("key%d", post), int64(1234+post)
		require.Equal(t, want, columns[key], key)
		if post > 0 {
			require.Equal(t, want, rows[key], key)
		}
		got := c.must(t, http.MethodGet, "/v1/counters/"+key, "")
		require.Equal(t, want, *got.Value, key)
	}
	got := c.must(t, http.MethodPost, "/v1/counters/key1/increment", "")
	require.Equal(t, int64(1236), *got.Value)
}

// Under load, Redis comes back with its data of 5 s before. 111 of the counters have a history.
func TestColumnsAndHistoriesAgreeAfterRedisWasRolledBackUnderLoad(t *testing.T) {
	t.Parallel()
	const posts = 300
	s := startMapped(t, posts, "id % 2 * 1000", "AFTERWRITE_HISTORY=key1*")
	before := s.likes(t)
	c := s.client()
	defer c.close()
	l, stop, done := newLedger(), make(chan struct{}), make(chan struct{})
	go func() { defer close(done); c.loadInto(l, 10, posts, forever, stop) }()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		n := len(s.rows(t))
		return n == posts, fmt.Sprintf("%d rows", n)
	})

	kept := l.acked() // the copy has these
	folder, saved := filepath.Join(s.world.Dir, "redis"), filepath.Join(t.TempDir(), "saved")
	require.NoError(t, os.CopyFS(saved, os.DirFS(folder)))
	<-time.After(5 * time.Second) // what Redis loses, not a wait for a condition
	s.world.Redis.Kill()
	flushed, recorded := s.likes(t), s.records(t)
	require.NoError(t, os.RemoveAll(folder))
	require.NoError(t, os.CopyFS(folder, os.DirFS(saved)))
	require.NoError(t, s.world.Redis.Start(t.Context()))
	restarted := l.acked()
	localtest.Eventually(t, 30*time.Second, func() (bool, string) {
		n := sum(l.acked()) - sum(restarted)
		return n > 3000, fmt.Sprintf("%d writes since", n)
	})
	close(stop)
	<-done
	s.eventuallyClean(t, 30*time.Second)

	columns, rows := s.likes(t), s.rows(t)
	require.Equal(t, rows, columns, "counters and columns")
	for key, value := range columns {
		since := l.acknowledged[key] - restarted[key]
		require.GreaterOrEqual(t, value, max(before[key]+kept[key], flushed[key])+since, "%s: lost", key)
		require.LessOrEqual(t, value, before[key]+l.acknowledged[key]+l.indeterminate[key], "%s: counted twice", key)
		require.Equal(t, value, *c.must(t, http.MethodGet, "/v1/counters/"+key, "").Value, key)
	}
	s.requireHistories(t, before, recorded)
	repaired := metric(t, "afterwrite_reconciled_keys_total", append(s.workers, s.api)...)
	require.Positive(t, repaired, "redis has lost nothing that postgres has")
	t.Logf("%s; of %d that redis lost, postgres had %d; %v counters were repaired", l, sum(restarted)-sum(kept),
		sum(flushed)-sum(before)-sum(kept), repaired)
}

// records returns the records of all counters that have some.
func (s *system) records(t *testing.T) map[string][]world.Record {
	t.Helper()
	all := make(map[string][]world.Record)
	require.NoError(t, s.Records(t.Context(), func(r world.Recorded) {
		if len(r.Records) > 0 {
			all[r.Key] = slices.Clone(r.Records)
		}
	}))
	return all
}

// requireHistories requires that the records of the counters key1* lead from the values before to their rows, that no record of earlier
// has changed, and that other counters have none.
func (s *system) requireHistories(t *testing.T, before map[string]int64, earlier map[string][]world.Record) {
	t.Helper()
	counters := 0
	require.NoError(t, s.Records(t.Context(), func(r world.Recorded) {
		if !strings.HasPrefix(r.Key, "key1") {
			require.Empty(t, r.Records, r.Key)
			return
		}
		counters++
		require.Zero(t, world.Replay(world.State{Value: before[r.Key]}, r.Records, r.Row), r.Key)
		require.Greater(t, len(r.Records), len(earlier[r.Key]), r.Key)
		require.Equal(t, earlier[r.Key], r.Records[:len(earlier[r.Key])], r.Key)
	}))
	require.Equal(t, 111, counters)
	_, err := s.Output(t.Context(), "verify", "--history", "--repair") // a late flush may have left entries behind their rows
	require.NoError(t, err)
}

func sum(of map[string]int64) (sum int64) {
	for value := range maps.Values(of) {
		sum += value
	}
	return sum
}
