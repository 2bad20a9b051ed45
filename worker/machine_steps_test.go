package worker

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
)

// Steps of the machine besides writes and flushes: actions of operators and other processes, and the passing of time.

// requeue requeues a set-aside key, because it is due or a client requests a flush.
func (m *machine) requeue(t *rapid.T) {
	ctx, key := context.Background(), m.drawKey(t)
	if rapid.Bool().Draw(t, "due") {
		aged := redis.Z{Member: string(key)}
		require.NoError(t, m.server.ZAddXX(ctx, machineTag(m, key)+":retry", aged).Err())
		return
	}
	m.requeueKeys(t, key)
}

// requeueKeys requeues keys that wait for a retry or are dead.
func (m *machine) requeueKeys(t rapid.TB, keys ...counter.Key) {
	ctx := context.Background()
	require.NoError(t, m.cache.Requeue(ctx, keys))
	for _, key := range keys {
		_, err := m.cache.Redrive(ctx, m.cache.Shard(key), []counter.Key{key})
		require.NoError(t, err)
	}
	m.check(t, nil)
}

// show shows a dead letter to an operator.
func (m *machine) show(t *rapid.T) {
	key := m.drawKey(t)
	if !m.look(t)[key].dead || m.outage {
		t.Skip("nothing to see")
	}
	m.letters[key] = m.shown(t, key)
}

func (m *machine) shown(t rapid.TB, key counter.Key) operate.DeadLetter {
	dead, err := m.operator(m.store).Get(context.Background(), key)
	require.NoError(t, errors.Join(err, dead.PostgresErr))
	return dead
}

func (m *machine) operator(s operate.Store) *operate.Service {
	return operate.New(operate.Options{Cache: m.cache, Store: s, Redis: m.server, Logger: m.flusher.logger})
}

// discard discards the writes of a dead key as they were shown, or dies before or after the upsert.
func (m *machine) discard(t *rapid.T) {
	key := m.drawKey(t)
	letter, found := m.letters[key]
	if !found || m.outage || m.refusing[key] || m.locked[key] {
		t.Skip("not now")
	}
	delete(m.letters, key)
	m.discardShown(t, key, letter, rapid.SampledFrom([]fate{proceed, refuse, loseAnswer}).Draw(t, "fate"))
}

func (m *machine) discardShown(t rapid.TB, key counter.Key, dead operate.DeadLetter, what fate) {
	version := m.look(t)[key].version
	_, err := m.operator(&discardStore{gatedStore: m.store, t: t, fate: what}).Discard(context.Background(), dead)
	reason := operate.ReasonOf(err)
	changed, alive := reason == operate.Changed, reason == operate.NotDead
	if err != nil && !changed && !alive && reason != operate.StillDead {
		t.Fatalf("discard %s: %v", key, err)
	}
	if version != dead.Redis.Version && !changed && !alive {
		t.Fatalf("discard %s: it was written since it was shown, and is given up: %v", key, err)
	}
	m.check(t, nil)
	// A Redis restored from before a discard has undone it, and neither its data nor the row shows that.
	m.snapshots = m.snapshots[:1]
}

// discardStore is the Postgres of a discard. The rows that it gets are the rewound entries.
type discardStore struct {
	gatedStore

	t    rapid.TB
	fate fate
}

func (s *discardStore) UpsertUnlocked(ctx context.Context, rows []counter.Row) (store.Upserted, error) {
	return s.UpsertHistory(ctx, rows, nil)
}

func (s *discardStore) UpsertHistory(ctx context.Context, rows []counter.Row, records store.History) (store.Upserted, error) {
	row := rows[0]
	s.m.number++
	rewind := &written{kind: counter.Set, amount: row.Value, number: s.m.number, rewind: row.Version}
	if row.Deleted {
		rewind.kind = counter.Delete
	}
	s.m.keys[row.Key].rewind = rewind
	s.m.check(s.t, nil)
	if s.fate == refuse {
		return store.Upserted{}, errInjected
	}
	upserted, err := s.gatedStore.UpsertHistory(ctx, rows, records)
	if s.fate == loseAnswer {
		return store.Upserted{}, errInjected
	}
	return upserted, err
}

// evict starts an eviction of all clean entries, and may finish it.
func (m *machine) evict(t *rapid.T) {
	m.room(t)
	f := m.launchEviction(t)
	if rapid.Bool().Draw(t, "whole") {
		m.finish(t, f)
	}
}

func (m *machine) launchEviction(t rapid.TB) *flight {
	f := m.launch("evict", func(ctx context.Context, f *flight) {
		_, f.err = m.cache.EvictIdle(ctx, cache.Eviction{
			Idle: -time.Hour, Urgent: true, Pace: func(context.Context, int) error { return nil },
		})
	})
	m.landed(t, f)
	return f
}

// expire expires an entry that has a TTL.
func (m *machine) expire(t *rapid.T) {
	key := m.drawKey(t)
	if m.look(t)[key].ttl < 0 {
		t.Skip("no TTL")
	}
	require.NoError(t, m.server.Del(context.Background(), machineTag(m, key)+":c:"+string(key)).Err())
	m.check(t, nil)
}

// repair starts `verify --repair` for a key: it reads the key twice, and repairs it if it has not changed.
func (m *machine) repair(t *rapid.T) {
	m.room(t)
	m.launchRepair(t, m.drawKey(t))
}

func (m *machine) launchRepair(t rapid.TB, key counter.Key) *flight {
	keys := []counter.Key{key}
	f := m.launch("repair", func(ctx context.Context, f *flight) {
		before, first, err := m.compare(ctx, keys)
		if err != nil {
			return
		}
		seen, class, err := m.compare(ctx, keys)
		if err != nil || class != first || seen != before {
			return
		}
		how := map[operate.Class]cache.Repairing{
			operate.ClassAhead: cache.MarkAgain, operate.ClassMissing: cache.MarkAgain, operate.ClassBehind: cache.DropStale,
		}[class]
		if how != "" {
			_, f.err = m.cache.Repair(ctx, m.cache.Shard(key), how, []cache.Inspected{seen})
		}
	})
	m.landed(t, f)
	return f
}

func (m *machine) compare(ctx context.Context, keys []counter.Key) (cache.Inspected, operate.Class, error) {
	seen, err := m.cache.Inspect(ctx, keys)
	if err != nil {
		return cache.Inspected{}, "", err
	}
	rows, err := m.store.Read(ctx, keys)
	if err != nil {
		return cache.Inspected{}, "", err
	}
	row, found := rows[keys[0]]
	return seen[0], operate.Compare(seen[0], row, found), nil
}

func (m *machine) snapshot(t *rapid.T) { m.save(t) }

// restartOnly is a restart that loses nothing.
func (m *machine) restartOnly(t *rapid.T) { m.restart(t) }

// loseTail is a restart from a snapshot; or, with the empty one that each run begins with, perhaps a FLUSHALL.
func (m *machine) loseTail(t *rapid.T) {
	last := len(m.snapshots) - 1
	to := last - rapid.IntRange(0, last).Draw(t, "snapshots back")
	m.rollback(t, to)
	if to > 0 || rapid.Bool().Draw(t, "restart") {
		m.restart(t)
	}
}

func (m *machine) toggleOutage(*rapid.T) { m.outage = !m.outage }

// toggleRefusal makes Postgres refuse a key's row, or accept it again.
func (m *machine) toggleRefusal(t *rapid.T) {
	key := m.drawKey(t)
	m.refuseAt(t, key, !m.refusing[key], rapid.SampledFrom([]string{"counters", "mapped"}).Draw(t, "place"))
}

func (m *machine) refuse(t rapid.TB, key counter.Key, refused bool) {
	m.refuseAt(t, key, refused, "counters")
}

// refuseAt makes Postgres refuse a key's row in one of two tables, or accept it again.
func (m *machine) refuseAt(t rapid.TB, key counter.Key, refused bool, place string) {
	if refused {
		m.exec(t, `INSERT INTO refused VALUES ($1, $2)`, string(key), place)
	} else {
		m.exec(t, `DELETE FROM refused WHERE key = $1`, string(key))
	}
	m.refusing[key] = refused
}

// toggleLock locks a key's row, or releases the lock.
func (m *machine) toggleLock(t *rapid.T) {
	key := m.drawKey(t)
	m.locked[key] = !m.locked[key]
}
