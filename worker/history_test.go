package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
	"github.com/afterwrite/afterwrite/tasks"
	"github.com/afterwrite/afterwrite/worker"
)

var withHistory = map[string]string{"AFTERWRITE_HISTORY": "likes:*"}

// operations returns the history of key in Postgres.
func (b *testBundle) operations(t *testing.T, key counter.Key) []counter.Record {
	t.Helper()
	all, err := b.store.Operations(t.Context(), key, store.Span{Limit: store.MaxBatch})
	require.NoError(t, err)
	return all
}

// brief describes records: version, change, amount and value.
func brief(all []counter.Record) []string {
	lines := make([]string, len(all))
	for i, r := range all {
		lines[i] = fmt.Sprintf("%d %s %d = %d", r.Version, r.Change, r.Amount, r.Value)
	}
	return lines
}

func (b *testBundle) pending(t *testing.T, key counter.Key) []counter.Record {
	t.Helper()
	e, err := b.cache.Pending(t.Context(), key)
	require.NoError(t, err)
	if e.Records == nil {
		return nil
	}
	return e.Records.All
}

// The example of the article: ten likes, a like, an unlike, a like. The state is 11; the history has the order.
func TestHistoryHasEveryOperationInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	origin := &counter.Origin{Caller: "web", Request: "r1", Note: "post 7"}
	ops := []counter.Operation{
		set("likes:7", 10), increment("likes:7", 1), increment("likes:7", -1), increment("likes:7", 1), increment("views:7", 1),
	}
	ops[1].Origin = origin
	b.do(t, ops...)
	want := []string{"1 set 10 = 10", "2 increment 1 = 11", "3 increment -1 = 10", "4 increment 1 = 11"}
	require.Equal(t, want, brief(b.pending(t, "likes:7")))
	require.Equal(t, *origin, b.pending(t, "likes:7")[1].Origin)
	rows, left := b.drainAll(t)
	require.Equal(t, int64(2), rows)
	require.Zero(t, left)
	require.Empty(t, b.pending(t, "likes:7"))
	all := b.operations(t, "likes:7")
	require.Equal(t, want, brief(all))
	require.Equal(t, *origin, all[1].Origin)
	require.Empty(t, b.operations(t, "views:7"), "a counter without history")
	b.requireRow(t, counter.Row{Key: "likes:7", Value: 11, Version: 4})

	b.do(t, del("likes:7"), increment("likes:7", 2))
	b.drainAll(t)
	require.Equal(t, append(want, "5 delete 0 = 0", "6 increment 2 = 2"), brief(b.operations(t, "likes:7")))
	require.Zero(t, b.redis.Exists(t.Context(), b.name("likes:7", "hn"), b.name("likes:7", "h:likes:7")).Val(), "left in Redis")
}

// Increments that arrive together are not combined: each has its own record, in the order of the answers.
func TestHistoryOfManyClientsHasNoGap(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	const clients, each = 200, 5
	var mu sync.Mutex
	requests := make(map[int64]string)
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			for n := range each {
				op := increment("likes:hot", int64(client))
				op.Origin = &counter.Origin{Request: fmt.Sprintf("%d-%d", client, n)}
				r := b.service.Do(context.Background(), []counter.Operation{op}, writepath.Options{})[0]
				mu.Lock()
				if r.Err == nil {
					requests[r.Counter.Version] = op.Origin.Request
				}
				mu.Unlock()
			}
		})
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range 5 {
			_, _, _ = b.worker.DrainAll(context.Background(), "meanwhile")
		}
	}()
	group.Wait()
	<-drained
	b.drainAll(t)
	all := b.operations(t, "likes:hot")
	require.Len(t, all, clients*each)
	for i, r := range all {
		require.EqualValues(t, i+1, r.Version)
		require.Equal(t, requests[r.Version], r.Request, "version %d", r.Version)
	}
	row, _ := b.row(t, "likes:hot")
	require.Equal(t, counter.Row{Key: "likes:hot", Value: all[len(all)-1].Value, Version: clients * each}, row)
}

// A counter that is written while Postgres is away counts from an unknown base. Its records get their numbers when the base is known.
func TestHistoryOfAnUnknownBaseIsRenumbered(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	b.do(t, set("likes:7", 100), increment("likes:7", 1))
	b.drainAll(t)
	require.NoError(t, b.redis.FlushDB(t.Context()).Err())
	minimal := writepath.Options{Minimal: true}
	for _, op := range []counter.Operation{increment("likes:7", 1), increment("likes:7", 5), set("likes:7", 7), increment("likes:7", 1)} {
		require.NoError(t, b.service.Do(t.Context(), []counter.Operation{op}, minimal)[0].Err)
	}
	require.Len(t, b.pending(t, "likes:7"), 4)
	require.False(t, b.pending(t, "likes:7")[0].Known)
	b.drainAll(t)
	require.Equal(t, []string{
		"1 set 100 = 100", "2 increment 1 = 101", "3 increment 1 = 102", "4 increment 5 = 107", "5 set 7 = 7", "6 increment 1 = 8",
	}, brief(b.operations(t, "likes:7")))
	b.requireRow(t, counter.Row{Key: "likes:7", Value: 8, Version: 6})
}

// A refused row takes its records along, and they are written with it later.
func TestHistoryWaitsForARefusedRow(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT refuse CHECK (value < 100 OR key <> 'likes:bad')`)
	b.do(t, increment("likes:bad", 100), increment("likes:good", 1))
	b.drainAll(t)
	require.Len(t, b.operations(t, "likes:good"), 1)
	require.Empty(t, b.operations(t, "likes:bad"))
	b.do(t, increment("likes:bad", -1))
	b.exec(t, `ALTER TABLE counters DROP CONSTRAINT refuse`)
	require.NoError(t, b.cache.Requeue(t.Context(), []counter.Key{"likes:bad"}))
	b.drainAll(t)
	require.Equal(t, []string{"1 increment 100 = 100", "2 increment -1 = 99"}, brief(b.operations(t, "likes:bad")))
}

// The bound applies to the records of a shard. Past it no operation with a history is applied; others are.
func TestHistoryHasABound(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_HISTORY": "likes:*", "AFTERWRITE_MAX_HISTORY": "1000", "AFTERWRITE_SHARDS": "100"})
	for range 10 {
		b.do(t, increment("likes:7", 1))
	}
	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 10, backlog.MostRecords)
	require.EqualValues(t, 10, b.cache.MaxRecords())
	r := b.service.Do(t.Context(), []counter.Operation{increment("likes:7", 1)}, noOptions)[0]
	require.Equal(t, counter.CodeBackpressure, counter.CodeOf(r.Err))
	b.do(t, get("likes:7"), increment("views:7", 1))
	b.drainAll(t)
	b.do(t, increment("likes:7", 1))
	b.drainAll(t)
	require.Len(t, b.operations(t, "likes:7"), 11)
}

// oneShard has a bound of 1,000 records for its only shard.
var oneShard = map[string]string{"AFTERWRITE_HISTORY": "likes:*", "AFTERWRITE_MAX_HISTORY": "1000", "AFTERWRITE_SHARDS": "1"}

// fillShare increments key until an increment is refused, and returns how many were accepted.
func (b *testBundle) fillShare(t *testing.T, key counter.Key) (accepted int) {
	t.Helper()
	ops := make([]counter.Operation, 100)
	for i := range ops {
		ops[i] = increment(key, 1)
	}
	for range 20 {
		for _, r := range b.service.Do(t.Context(), ops, noOptions) {
			if r.Err != nil {
				require.Equal(t, counter.CodeBackpressure, counter.CodeOf(r.Err))
				return accepted
			}
			accepted++
		}
	}
	t.Fatal("no increment was refused")
	return 0
}

// Nothing trims the records of a refused counter until an operator acts. Its writes must not take the place of the others'.
func TestHistoryOfARefusedCounterUsesHalfOfTheBound(t *testing.T) {
	t.Parallel()
	b := setup(t, oneShard)
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT refuse CHECK (key <> 'likes:bad')`)
	b.do(t, increment("likes:bad", 1))
	b.drainAll(t)
	require.Equal(t, 499, b.fillShare(t, "likes:bad"))
	require.Equal(t, 500, b.fillShare(t, "likes:good"))
	b.drainAll(t)
	require.Len(t, b.operations(t, "likes:good"), 500)
	require.Len(t, b.pending(t, "likes:bad"), 500)
}

// The records of a deleted entry go with its next write, so they must not prevent it.
func TestHistoryBoundIgnoresTheRecordsOfADeletedEntry(t *testing.T) {
	t.Parallel()
	b := setup(t, oneShard)
	require.Equal(t, 1000, b.fillShare(t, "likes:7"))
	require.NoError(t, b.redis.Del(t.Context(), b.name("likes:7", "c:likes:7")).Err())
	b.do(t, increment("likes:7", 5), increment("likes:8", 1))
	require.Equal(t, "2", b.redis.Get(t.Context(), b.name("likes:7", "hn")).Val())
	b.drainAll(t)
	require.Equal(t, []string{"1 increment 5 = 5"}, brief(b.operations(t, "likes:7")))
	require.Zero(t, b.redis.Exists(t.Context(), b.name("likes:7", "hn")).Val())
}

// If the counter is not written again, a flush drops them, or the others of the shard would be refused for ever.
func TestFlushDropsTheRecordsOfADeletedEntry(t *testing.T) {
	t.Parallel()
	b := setup(t, oneShard)
	b.do(t, increment("likes:8", 1), increment("likes:8", 1))
	require.Equal(t, 998, b.fillShare(t, "likes:7"))
	require.NoError(t, b.redis.Del(t.Context(), b.name("likes:7", "c:likes:7")).Err())
	b.drainAll(t)
	require.Zero(t, b.redis.Exists(t.Context(), b.name("likes:7", "hn"), b.name("likes:7", "h:likes:7")).Val())
	b.do(t, increment("likes:8", 1))
	require.Equal(t, "1", b.redis.Get(t.Context(), b.name("likes:8", "hn")).Val())
	b.drainAll(t)
	require.Len(t, b.operations(t, "likes:8"), 3)
}

// An api with another setting must not leave a gap in what is not flushed yet.
func TestHistoryGoesOnWithoutTheSetting(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	other := setupOn(t, b.redisURL, b.postgresURL, nil)
	b.do(t, increment("likes:7", 1))
	other.do(t, increment("likes:7", 2), increment("likes:7", 4))
	b.do(t, increment("likes:7", 8))
	other.drainAll(t)
	require.Equal(t, []string{
		"1 increment 1 = 1", "2 increment 2 = 3", "3 increment 4 = 7", "4 increment 8 = 15",
	}, brief(b.operations(t, "likes:7")))
	other.do(t, increment("likes:7", 1))
	other.drainAll(t)
	require.Len(t, b.operations(t, "likes:7"), 4)
	b.requireRow(t, counter.Row{Key: "likes:7", Value: 16, Version: 5})
}

// An entry that somebody deletes by hand loses its unsynced writes. Their records must not mix with later ones.
func TestHistoryDropsTheRecordsOfADeletedEntry(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	b.do(t, increment("likes:7", 1), increment("likes:7", 1))
	require.NoError(t, b.redis.Del(t.Context(), b.name("likes:7", "c:likes:7")).Err())
	b.do(t, increment("likes:7", 5))
	b.drainAll(t)
	require.Equal(t, []string{"1 increment 5 = 5"}, brief(b.operations(t, "likes:7")))
	require.Zero(t, b.redis.Exists(t.Context(), b.name("likes:7", "hn")).Val())
}

// The same, if an api without the setting is the first to write the counter again.
func TestHistoryDropsTheRecordsOfADeletedEntryThatIsDirtyAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	other := setupOn(t, b.redisURL, b.postgresURL, nil)
	b.do(t, increment("likes:7", 1), increment("likes:7", 1))
	require.NoError(t, b.redis.Del(t.Context(), b.name("likes:7", "c:likes:7")).Err())
	other.do(t, increment("likes:7", 5))
	b.do(t, increment("likes:7", 1))
	b.drainAll(t)
	require.Equal(t, []string{"2 increment 1 = 6"}, brief(b.operations(t, "likes:7")))
	require.Zero(t, b.redis.Exists(t.Context(), b.name("likes:7", "hn"), b.name("likes:7", "h:likes:7")).Val())
}

// A counter that is created again after AFTERWRITE_TOMBSTONE_TTL continues its history, while Postgres has it.
func TestHistoryOfADeletedCounterGoesOn(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	b.do(t, set("likes:7", 10), del("likes:7"), set("views:7", 10), del("views:7"))
	b.drainAll(t)
	require.NoError(t, b.redis.FlushDB(t.Context()).Err())
	b.exec(t, `UPDATE counters SET deleted_at = now() - interval '30 days'`)
	removed, _, err := b.store.Purge(t.Context(), time.Hour, 10)
	require.NoError(t, err)
	require.EqualValues(t, 1, removed)
	b.do(t, increment("likes:7", 5))
	b.drainAll(t)
	require.Equal(t, []string{"1 set 10 = 10", "2 delete 0 = 0", "3 increment 5 = 5"}, brief(b.operations(t, "likes:7")))
	b.requireRow(t, counter.Row{Key: "likes:7", Value: 5, Version: 3})
}

// On a cluster the entry, the list and the count of a counter share a slot, and each shard is a call of its own.
func TestHistoryOnACluster(t *testing.T) {
	t.Parallel()
	server := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--cluster-enabled", "yes"}})
	node, err := cache.Connect(server.URL(), 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, node.Close()) })
	require.NoError(t, node.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err())
	localtest.Eventually(t, 10*time.Second, func() (bool, string) {
		info, err := node.ClusterInfo(t.Context()).Result()
		return err == nil && strings.HasPrefix(info, "cluster_state:ok"), info
	})
	b := setupOn(t, strings.Replace(server.URL(), "redis://", "redis-cluster://", 1), localtest.PostgresURL(t, migrate), withHistory)
	const keys = 40
	shards := make(map[counter.Shard]bool)
	for range 2 { // from an unknown base, and from one in Redis
		var ops []counter.Operation
		for i := range keys {
			key := counter.Key(fmt.Sprintf("likes:%d", i))
			shards[b.cache.Shard(key)] = true
			ops = append(ops, increment(key, 1), increment(key, 2), increment(counter.Key(fmt.Sprintf("views:%d", i)), 1))
		}
		for _, r := range b.service.Do(t.Context(), ops, writepath.Options{Minimal: true}) {
			require.NoError(t, r.Err)
		}
		backlog, err := b.cache.Backlog(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2*keys, backlog.Records)
		_, left := b.drainAll(t)
		require.Zero(t, left)
	}
	require.Greater(t, len(shards), 8)
	for i := range keys {
		key := counter.Key(fmt.Sprintf("likes:%d", i))
		require.Equal(t, []string{"1 increment 1 = 1", "2 increment 2 = 3", "3 increment 1 = 4", "4 increment 2 = 6"}, brief(b.operations(t, key)))
		require.Empty(t, b.pending(t, key))
	}
	backlog, err := b.cache.Backlog(t.Context())
	require.NoError(t, err)
	require.Zero(t, backlog.Records)
}

// The guard has kept the row out, so Postgres does not have its records. If Redis fails before the entry is merged, they must stay.
func TestHistoryKeepsTheRecordsOfAConflict(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	b.do(t, increment("likes:7", 1), increment("likes:7", 1))
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at, lineage) VALUES ('likes:7', 50, 3, now(), 1)`)
	failing := b.mortal(t, "reconcile", 1, false, func() {})
	_, _, err := failing.DrainAll(t.Context(), "failing")
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, b.pending(t, "likes:7"), 2)
	b.drainAll(t)
	require.Equal(t, []string{"4 increment 1 = 51", "5 increment 1 = 52"}, brief(b.operations(t, "likes:7")))
	b.requireRow(t, counter.Row{Key: "likes:7", Value: 52, Version: 5})
}

// partsStore notes the most records of one call.
type partsStore struct {
	worker.Store

	mu   sync.Mutex
	most int
}

func (s *partsStore) UpsertHistory(ctx context.Context, rows []counter.Row, history store.History) (store.Upserted, error) {
	s.mu.Lock()
	for _, records := range history {
		s.most = max(s.most, len(records))
	}
	s.mu.Unlock()
	return s.Store.UpsertHistory(ctx, rows, history)
}

// A transaction has a bounded number of records, however many one counter has: it must end within the statement timeout.
func TestHistoryOfAHotCounterIsFlushedInParts(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	const calls, each = 85, 250
	ops := make([]counter.Operation, each)
	for i := range ops {
		ops[i] = increment("likes:hot", 1)
	}
	for range calls {
		b.do(t, ops...)
	}
	b.do(t, del("likes:hot"), increment("likes:7", 1))
	s := &partsStore{Store: b.store}
	w := worker.New(worker.Options{
		Config: b.config, Redis: b.redis, Cache: b.cache, Store: s, Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	_, left, err := w.DrainAll(t.Context(), "test")
	require.NoError(t, err)
	require.Zero(t, left)
	require.Equal(t, 10_000, s.most)
	var n, last int
	require.NoError(t, b.db.QueryRow(`SELECT count(*), max(version) FROM operations WHERE key = 'likes:hot'`).Scan(&n, &last))
	require.Equal(t, calls*each+1, n)
	require.Equal(t, n, last)
	b.requireRow(t, counter.Row{Key: "likes:hot", Version: int64(n), Deleted: true})
	require.Empty(t, b.pending(t, "likes:hot"))
}

// hookedStore calls a function after each flush of the records of a key.
type hookedStore struct {
	worker.Store

	key   counter.Key
	calls int
	after func(call int)
}

func (s *hookedStore) UpsertHistory(ctx context.Context, rows []counter.Row, history store.History) (store.Upserted, error) {
	upserted, err := s.Store.UpsertHistory(ctx, rows, history)
	if history[s.key] != nil {
		s.calls++
		s.after(s.calls)
	}
	return upserted, err
}

// hooked returns a worker whose store is s.
func (b *testBundle) hooked(t *testing.T, s *hookedStore) *worker.Worker {
	t.Helper()
	s.Store = b.store
	return worker.New(worker.Options{
		Config: b.config, Redis: b.redis, Cache: b.cache, Store: s, Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
}

// record increments key n times, a multiple of 250.
func (b *testBundle) record(t *testing.T, key counter.Key, n int) {
	t.Helper()
	ops := make([]counter.Operation, 250)
	for i := range ops {
		ops[i] = increment(key, 1)
	}
	for range n / len(ops) {
		b.do(t, ops...)
	}
}

var oneShardWithHistory = map[string]string{"AFTERWRITE_HISTORY": "likes:*", "AFTERWRITE_SHARDS": "1"}

// A flush writes what there was when it began. Otherwise a counter that is written as fast as it is flushed would stop its whole shard.
func TestFlushInPartsEndsWhileTheCounterIsWritten(t *testing.T) {
	t.Parallel()
	b := setup(t, oneShardWithHistory)
	s := &hookedStore{key: "likes:hot", after: func(call int) {
		if call <= 6 {
			b.record(t, "likes:hot", 10_000)
		}
	}}
	w := b.hooked(t, s)
	b.record(t, "likes:hot", 12_500)
	b.do(t, increment("views:7", 1))
	drained, err := w.Flusher(0).Drain(t.Context(), 0, "test", 0)
	require.NoError(t, err)
	require.Equal(t, 2, s.calls)
	require.NotZero(t, drained.Again)
	require.EqualValues(t, 1, b.backlog(t).Dirty)
	require.True(t, b.read(t, "likes:hot").Recorded)

	b.drainAll(t)
	require.Zero(t, b.backlog(t).Dirty)
	var n, last int
	require.NoError(t, b.db.QueryRow(`SELECT count(*), max(version) FROM operations WHERE key = 'likes:hot'`).Scan(&n, &last))
	require.Equal(t, 32_500, n)
	require.Equal(t, n, last)
	b.requireRow(t, counter.Row{Key: "likes:hot", Value: int64(n), Version: int64(n)})
}

func TestFlushInPartsThatTakesLongerThanADrainIsContinued(t *testing.T) {
	t.Parallel()
	b := setup(t, oneShardWithHistory)
	s := &hookedStore{key: "likes:hot", after: func(int) {}}
	f := b.hooked(t, s).Flusher(time.Nanosecond) // its time is over when it has flushed a part
	b.record(t, "likes:hot", 22_500)
	for drains := 1; drains <= 3; drains++ {
		drained, err := f.Drain(t.Context(), 0, "test", 0)
		require.NoError(t, err)
		require.Equal(t, drains, s.calls)
		require.Equal(t, drains < 3, drained.More)
	}
	require.Zero(t, b.backlog(t).Dirty)
	b.requireRow(t, counter.Row{Key: "likes:hot", Value: 22_500, Version: 22_500})
}

func TestFlushInPartsRenewsItsLease(t *testing.T) {
	t.Parallel()
	b := setup(t, oneShardWithHistory)
	lease := b.name("likes:hot", "drain")
	s := &hookedStore{key: "likes:hot"}
	s.after = func(call int) {
		if call == 1 {
			time.Sleep(1100 * time.Millisecond) // the part takes longer than the time between two renewals
			require.NoError(t, b.redis.PExpire(t.Context(), lease, time.Hour).Err())
			return
		}
		require.Less(t, b.redis.PTTL(t.Context(), lease).Val(), time.Minute, "it was not renewed")
	}
	f := b.hooked(t, s).Flusher(0)
	b.record(t, "likes:hot", 12_500)
	_, err := f.Drain(t.Context(), 0, "test", 0)
	require.NoError(t, err)
	require.Equal(t, 2, s.calls)
}

// If the last record of a part is not the one that was flushed, none is trimmed, and the next part would be the same.
func TestFlushInPartsEndsIfNothingIsTrimmed(t *testing.T) {
	t.Parallel()
	b := setup(t, oneShardWithHistory)
	list := b.name("likes:hot", "h:likes:hot")
	b.record(t, "likes:hot", 22_500)
	s := &hookedStore{key: "likes:hot"}
	s.after = func(call int) {
		require.Less(t, call, 10)
		require.NoError(t, b.redis.LSet(t.Context(), list, 9_999, b.redis.LIndex(t.Context(), list, 9_999).Val()+"x").Err())
	}
	_, err := b.hooked(t, s).Flusher(0).Drain(t.Context(), 0, "test", 0)
	require.ErrorContains(t, err, "although postgres has them")
	require.Equal(t, 2, s.calls)
	b.drainAll(t)
	require.Empty(t, b.pending(t, "likes:hot"))
	b.requireRow(t, counter.Row{Key: "likes:hot", Value: 22_500, Version: 22_500})
}

// A retry takes its key back from those set aside. If it has flushed only a part, the rest must be in an epoch.
func TestRetryOfAPartLeavesTheRestDirty(t *testing.T) {
	t.Parallel()
	b := setup(t, oneShardWithHistory)
	b.record(t, "likes:hot", 12_500)
	require.NoError(t, b.cache.SetAside(t.Context(), 0, []counter.Key{"likes:hot"}, time.Hour))
	snapshot, err := b.cache.Read(t.Context(), 0, []counter.Key{"likes:hot"})
	require.NoError(t, err)
	require.NoError(t, b.cache.ReadRecords(t.Context(), &snapshot))
	require.True(t, snapshot.Entries[0].Partial)
	require.NoError(t, b.cache.Settle(t.Context(), 0, snapshot.Entries))
	require.False(t, b.read(t, "likes:hot").Aside)
	require.EqualValues(t, 1, b.backlog(t).Dirty)
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "likes:hot", Value: 12_500, Version: 12_500})
}

// Whatever the step at which a flush in parts dies, another worker goes on with it, and writes in between come after it.
func TestFlushInPartsThatDiesIsCompletedByAnotherWorker(t *testing.T) {
	t.Parallel()
	const calls, each = 41, 250 // a part has 10,000
	b := setup(t, map[string]string{"AFTERWRITE_HISTORY": "likes:*", "AFTERWRITE_SHARDS": "1"})
	ops := make([]counter.Operation, each)
	for number, d := range []death{
		{stepUpsert, 1, true},
		{stepUpsert, 2, false},
		{stepUpsert, 2, true},
		{"trim", 1, false},
		{"trim", 1, true},
		{"trim", 2, true},
		{"records", 2, true},
		{stepCommit, 1, false},
	} {
		key := counter.Key(fmt.Sprintf("likes:%d", number))
		for i := range ops {
			ops[i] = increment(key, 1)
		}
		for range calls {
			b.do(t, ops...)
		}
		b.do(t, del(key), increment(key, 5))
		m := b.mortal(t, d.step, d.nth, d.done, nil)
		_, _, err := m.DrainAll(t.Context(), "first")
		require.ErrorIs(t, err, errDied, d)
		require.True(t, m.dead, "%v: it did not reach the step", d)
		require.NoError(t, b.redis.Del(t.Context(), b.name(key, "drain")).Err()) // its lease ends
		b.do(t, increment(key, 2))
		b.drainAll(t)
		b.drainAll(t) // keys that joined the open epoch meanwhile

		const n = calls*each + 3
		b.requireRow(t, counter.Row{Key: key, Value: 7, Version: n})
		require.Empty(t, b.pending(t, key), d)
		var versions, wrong int
		require.NoError(t, b.db.QueryRow(`SELECT count(DISTINCT version), count(*) FILTER (WHERE value <> CASE version
			WHEN $2 THEN 7 WHEN $2 - 1 THEN 5 WHEN $2 - 2 THEN 0 ELSE version END) + count(*) - $2
			FROM operations WHERE key = $1`, key, n).Scan(&versions, &wrong))
		require.Equal(t, n, versions, d)
		require.Zero(t, wrong, d)
	}
}

func TestPurgeKeepsPartitionsReady(t *testing.T) {
	t.Parallel()
	b := setup(t, withHistory)
	b.run(t)
	b.send(t, tasks.Purge(time.Now(), time.Hour))
	require.Eventually(t, func() bool {
		var n int
		err := b.db.QueryRow(`SELECT count(*) FROM pg_inherits WHERE inhparent = 'afterwrite.operations'::regclass`).Scan(&n)
		return err == nil && n >= 4
	}, 10*time.Second, 20*time.Millisecond)
}
