package worker_test

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by their SHA-1
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/worker"
)

// The steps of a flush at which a mortal worker may die: scripts and commands of Redis, and calls of the store.
const (
	stepSeal   = "seal"
	stepKeys   = "smembers"
	stepRead   = "mget"
	stepRebase = "hydrate"
	stepUpsert = "upsert"
	stepAside  = "aside"
	stepDrop   = "drop" // the script of commit, with keys
	stepCommit = "commit"
)

var errDied = errors.New("this worker has died")

// mortal is a worker that dies at a step of its first flush: earlier calls are carried out, later ones are not.
type mortal struct {
	*worker.Worker

	at     string
	nth    int    // which occurrence of the step; 1 is the first
	done   bool   // the step is carried out, but its reply is lost
	cancel func() // if set, the worker does not die, but its context ends

	mu      sync.Mutex
	seen    int
	dead    bool
	upserts int // rows sent to Postgres
}

// mortal returns a worker beside b's own. cancel may be nil.
func (b *testBundle) mortal(t *testing.T, at string, nth int, done bool, cancel func()) *mortal {
	t.Helper()
	m := &mortal{at: at, nth: nth, done: done, cancel: cancel}
	client, err := cache.Connect(b.redisURL, 10)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	client.AddHook(mortalRedis{m, scriptNames(t)})
	m.Worker = worker.New(worker.Options{
		Config: b.config, Redis: client, Store: mortalStore{b.store, m}, Registerer: prometheus.NewRegistry(),
		Cache:  cache.New(client, cache.Options{Shards: b.config.Shards, CleanTTL: b.config.CleanTTL}),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	return m
}

// step carries a call out, unless the worker is dead or dies at this step.
func (m *mortal) step(name string, call func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDied
	}
	fatal := false
	if name == m.at {
		m.seen++
		fatal = m.seen == m.nth
	}
	m.mu.Unlock()
	if !fatal {
		return call()
	}
	if m.done {
		if err := call(); redis.HasErrorPrefix(err, "NOSCRIPT") {
			m.mu.Lock()
			m.seen-- // the client repeats it with the script's text
			m.mu.Unlock()
			return err
		}
	}
	if m.cancel != nil {
		m.cancel()
		return context.Canceled
	}
	m.mu.Lock()
	m.dead = true
	m.mu.Unlock()
	return errDied
}

type mortalRedis struct {
	m     *mortal
	names map[string]string
}

func (h mortalRedis) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h mortalRedis) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := h.m.step(h.name(cmd), func() error { return next(ctx, cmd) })
		cmd.SetErr(err)
		return err
	}
}

func (h mortalRedis) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		name := ""
		for _, cmd := range cmds {
			if n := h.name(cmd); n == h.m.at || name == "" {
				name = n
			}
		}
		err := h.m.step(name, func() error { return next(ctx, cmds) })
		if errors.Is(err, errDied) || errors.Is(err, context.Canceled) {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
		}
		return err
	}
}

// name returns the name of a command, or of the script that it runs.
func (h mortalRedis) name(cmd redis.Cmder) string {
	args := cmd.Args()
	if len(args) < 3 || !strings.HasPrefix(cmd.Name(), "eval") {
		return cmd.Name()
	}
	name := h.names[fmt.Sprint(args[1])]
	keys, _ := args[2].(int)
	const own = 3 + 2 // command, script, number of keys; id and first
	if name == stepCommit && len(args) > own+keys {
		return stepDrop
	}
	return name
}

// scriptNames are the names of the scripts by hash and by text.
func scriptNames(t *testing.T) map[string]string {
	t.Helper()
	texts, err := cache.Scripts(os.DirFS("../internal/cache"))
	require.NoError(t, err)
	names := make(map[string]string)
	for name, text := range texts {
		sum := sha1.Sum([]byte(text)) //nolint:gosec // Redis names scripts by their SHA-1
		names[hex.EncodeToString(sum[:])], names[text] = name, name
	}
	return names
}

type mortalStore struct {
	worker.Store

	m *mortal
}

func (s mortalStore) UpsertUnlocked(ctx context.Context, rows []counter.Row) (store.Upserted, error) {
	return s.UpsertHistory(ctx, rows, nil)
}

func (s mortalStore) UpsertHistory(
	ctx context.Context, rows []counter.Row, history store.History,
) (upserted store.Upserted, err error) {
	stepErr := s.m.step(stepUpsert, func() error {
		s.m.mu.Lock()
		s.m.upserts += len(rows)
		s.m.mu.Unlock()
		upserted, err = s.Store.UpsertHistory(ctx, rows, history)
		return err
	})
	if stepErr != nil {
		return store.Upserted{}, stepErr
	}
	return upserted, err
}

// death is one way for a flush to end before its time.
type death struct {
	step string
	nth  int
	done bool // see mortal
}

// deaths are all steps of a flush. The third upsert is a half with the bad row.
var deaths = []death{
	{stepSeal, 1, false},
	{stepSeal, 1, true},
	{stepKeys, 1, true},
	{stepRead, 1, true},
	{stepRebase, 1, false},
	{stepRebase, 1, true},
	{stepUpsert, 1, false},
	{stepUpsert, 3, true},
	{stepAside, 1, false},
	{stepAside, 1, true},
	{stepCommit, 1, false},
	{stepCommit, 1, true},
}

func (d death) String() string {
	when := "before"
	if d.done {
		when = "after"
	}
	return fmt.Sprintf("%s %s %d", when, d.step, d.nth)
}

func TestFlushThatDiesAtAnyStepIsCompletedByAnotherWorker(t *testing.T) {
	t.Parallel()
	for _, d := range deaths {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
			b.writeMixed(t)
			m := b.mortal(t, d.step, d.nth, d.done, nil)
			_, _, err := m.DrainAll(t.Context(), "first")
			require.ErrorIs(t, err, errDied)
			require.True(t, m.dead, "it did not reach the step")
			require.NoError(t, b.redis.Del(t.Context(), b.name("a", "drain")).Err()) // its lease ends

			b.finishMixed(t)
		})
	}
}

func TestFlushCanceledAtAnyStepReleasesItsShardAndIsCompletedByAnother(t *testing.T) {
	t.Parallel()
	for _, d := range deaths {
		if d.step == stepSeal {
			continue // it does not know whether it holds the shard: the lease must expire
		}
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
			b.writeMixed(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			m := b.mortal(t, d.step, d.nth, d.done, cancel)
			_, _, err := m.DrainAll(ctx, "first")
			require.ErrorIs(t, err, context.Canceled)
			require.Zero(t, b.redis.Exists(t.Context(), b.name("a", "drain")).Val(), "it still holds the shard")

			b.finishMixed(t)
		})
	}
}

// writeMixed writes counters of every kind into one shard: new, known, deleted, blind, and one that Postgres refuses.
func (b *testBundle) writeMixed(t *testing.T) {
	t.Helper()
	b.do(t, set("a", 100), set("gone", 1))
	b.exec(t, `INSERT INTO counters (key, value, version, updated_at) VALUES ('blind', 10, 4, now())`)
	b.drainAll(t)
	b.exec(t, `ALTER TABLE counters ADD CONSTRAINT small CHECK (value < 1000)`)
	b.do(t, increment("a", 1), del("gone"), set("new", 7), set("bad", 5000))
	b.write(t, true, []counter.Operation{increment("blind", 1)})
}

// finishMixed has another worker flush while writes continue, and requires that nothing was lost or counted twice.
func (b *testBundle) finishMixed(t *testing.T) {
	t.Helper()
	b.write(t, true, []counter.Operation{increment("a", 1), increment("bad", 1), increment("blind", 1), increment("late", 1)})
	b.drainAll(t)
	b.drainAll(t) // keys that joined the open epoch meanwhile
	require.Equal(t, int64(1), b.backlog(t).Dirty, "only the bad row")
	require.Zero(t, b.backlog(t).Dead)
	b.requireRow(t, counter.Row{Key: "a", Value: 102, Version: 3})
	b.requireRow(t, counter.Row{Key: "gone", Version: 2, Deleted: true})
	b.requireRow(t, counter.Row{Key: "new", Value: 7, Version: 1})
	b.requireRow(t, counter.Row{Key: "blind", Value: 12, Version: 6})
	b.requireRow(t, counter.Row{Key: "late", Value: 1, Version: 1})

	b.exec(t, `ALTER TABLE counters DROP CONSTRAINT small`)
	require.NoError(t, b.cache.Requeue(t.Context(), []counter.Key{"bad"}))
	b.drainAll(t)
	b.requireRow(t, counter.Row{Key: "bad", Value: 5001, Version: 2})
	require.Zero(t, b.backlog(t).Dirty)
	for _, key := range []counter.Key{"a", "gone", "new", "bad", "blind", "late"} {
		require.True(t, b.do(t, get(key))[0].Counter.Synced, key)
	}
}

// The lease of a dead worker expires without any action.
func TestShardOfADeadWorkerIsFreeAfterItsLease(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, increment("a", 1))
	m := b.mortal(t, stepUpsert, 1, false, nil)
	_, _, err := m.DrainAll(t.Context(), "first")
	require.ErrorIs(t, err, errDied)
	rows, left := b.drainAll(t)
	require.Zero(t, rows, "the dead worker still holds the shard")
	require.Equal(t, int64(1), left)

	const lease, slack = 5, 3 // seconds
	b.eventuallyDrained(t, lease+slack)
	b.requireRow(t, counter.Row{Key: "a", Value: 1, Version: 1})
}

// A worker dies in the middle of a large epoch: the next drain repeats only the rest.
func TestLargeEpochIsDroppedBatchByBatch(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1", "AFTERWRITE_FLUSH_BATCH": "10"})
	const keys = 400
	b.do(t, many(keys)...)
	m := b.mortal(t, stepUpsert, 20, false, nil)
	rows, _, err := m.DrainAll(t.Context(), "first")
	require.ErrorIs(t, err, errDied)
	require.Greater(t, rows, int64(50))
	left := b.redis.SCard(t.Context(), b.name("k0", "sealed")).Val()
	const page = 20 // Postgres may have a part of one page, and keys that a scan returns twice count twice
	require.InDelta(t, keys-rows, left, page, "the keys in Postgres have left the epoch")
	require.NoError(t, b.redis.Del(t.Context(), b.name("k0", "drain")).Err()) // its lease ends
	b.do(t, many(keys)...)

	second := b.mortal(t, "nothing", 1, false, nil)
	rest, dirty, err := second.DrainAll(t.Context(), "second")

	require.NoError(t, err)
	require.Zero(t, dirty)
	require.GreaterOrEqual(t, rest, int64(keys))
	const twice = keys / 8 // a scan of a set that shrinks may return some keys again
	require.InDelta(t, int(left)+keys, second.upserts, twice, "the rest of the epoch, and the next epoch")
	var sum, right int
	require.NoError(t, b.db.QueryRow(`SELECT sum(value), count(*) FILTER (WHERE version = 2) FROM counters`).Scan(&sum, &right))
	require.Equal(t, 2*keys, sum)
	require.Equal(t, keys, right)
}

// A worker dies after it has dropped every batch of a large epoch, but before the commit. Nothing is written afterwards.
func TestEpochWhoseBatchesWereAllDroppedIsCommitted(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1", "AFTERWRITE_FLUSH_BATCH": "1"})
	b.do(t, many(20)...)
	m := b.mortal(t, stepCommit, 1, false, nil)
	rows, left, err := m.DrainAll(t.Context(), "first")
	require.ErrorIs(t, err, errDied)
	require.Equal(t, int64(20), rows)
	require.Zero(t, left)
	require.True(t, b.do(t, get("k7"))[0].Counter.Synced)
}

// The last keys of a sealed epoch were set aside, and their retry succeeded: the epoch is empty, but not committed.
func TestEpochThatHasBecomeEmptyIsCommitted(t *testing.T) {
	t.Parallel()
	b := setup(t, map[string]string{"AFTERWRITE_SHARDS": "1"})
	b.do(t, set("flushed", 1), set("retried", 1))
	epoch := b.seal(t, 0, "first")
	require.NoError(t, b.cache.SetAside(t.Context(), 0, []counter.Key{"retried"}, time.Hour))
	b.upsert(t, b.read(t, "flushed"))
	require.True(t, b.commitLate(t, &epoch, "flushed"))
	retried := b.read(t, "retried")
	b.upsert(t, retried)
	require.NoError(t, b.cache.Settle(t.Context(), 0, []cache.Entry{retried}))
	b.endLease(t, "flushed")
	require.False(t, b.do(t, get("flushed"))[0].Counter.Synced)

	overdue, err := b.cache.Overdue(t.Context(), 0)
	require.NoError(t, err)
	require.Equal(t, []counter.Shard{0}, overdue, "a sweep finds it")
	b.drainAll(t)
	require.True(t, b.do(t, get("flushed"))[0].Counter.Synced)
}

// eventuallyDrained drains until nothing is dirty.
func (b *testBundle) eventuallyDrained(t *testing.T, seconds int) {
	t.Helper()
	localtest.Eventually(t, time.Duration(seconds)*time.Second, func() (bool, string) {
		_, left := b.drainAll(t)
		return left == 0, fmt.Sprintf("%d left", left)
	})
}
