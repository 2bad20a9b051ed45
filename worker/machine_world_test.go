package worker

import (
	"context"
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	_ "github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

const (
	machineShards = 2
	machineBatch  = 3
)

// machineKeys are few, so that steps meet each other: of two in one shard, and one that counts downwards.
var machineKeys = []counter.Key{"a", "b", "c"}

// machine is a write path and a worker, whose every call to a server the test carries out when it likes, and the model.
type machine struct {
	server  redis.UniversalClient // without gates
	cache   *cache.Cache
	flusher *Flusher
	retries *retries
	service *writepath.Service
	db      *sql.DB
	scripts map[string]string // names by hash, and by text

	keys      map[counter.Key]*modelKey
	flights   []*flight
	late      []lateCall
	snapshots []snapshot
	outage    bool
	refusing  map[counter.Key]bool
	lossy     bool // Redis has lost something in this run
	number    int
	failure   string
}

type noHints struct{}

func (noHints) Offer(counter.Key, counter.Shard, int64) {}

func migrateMachine(url string) error { return store.MigrateURL(context.Background(), url) }

// newMachine starts the servers; reset begins a run.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{scripts: scriptNames(t)}
	redisURL := localtest.OwnRedis(t, local.RedisOptions{}).URL()
	postgresURL := localtest.PostgresURL(t, migrateMachine)
	connect := func() redis.UniversalClient {
		client, err := cache.Connect(redisURL, 20)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		return client
	}
	m.server = connect()
	gated := connect()
	gated.AddHook(redisGates{m})
	logger := slog.New(slog.DiscardHandler)
	pg, err := store.Open(postgresURL, store.Options{Logger: logger, MaxConns: 4})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pg.Close()) })
	m.db, err = sql.Open("postgres", postgresURL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.db.Close()) })
	m.exec(t, `CREATE TABLE refused (key text)`)
	m.exec(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF EXISTS (SELECT FROM refused WHERE key = NEW.key) THEN RAISE check_violation; END IF; RETURN NEW; END $$`)
	m.exec(t, `CREATE TRIGGER refuse BEFORE INSERT ON counters FOR EACH ROW EXECUTE FUNCTION refuse()`)

	gate := gatedStore{Store: pg, m: m}
	m.cache = cache.New(gated, cache.Options{Shards: machineShards, CleanTTL: time.Hour})
	writer := m.cache.NewWriter(func() bool { return true })
	t.Cleanup(writer.Close)
	m.service = writepath.New(m.cache, writer, gate, noHints{})
	metrics := newMetrics(prometheus.NewRegistry(), gate.Up)
	m.retries = &retries{
		cache: m.cache, sender: asynq.NewClientFromRedisClient(m.server),
		inspector: asynq.NewInspectorFromRedisClient(m.server), metrics: metrics, logger: logger,
		maxAttempts: 2, backoff: time.Minute, sweepInterval: time.Minute,
	}
	m.flusher = &Flusher{
		cache: m.cache, store: gate, hints: noHints{}, refusals: m.retries, metrics: metrics, logger: logger,
		batch: machineBatch, rowLimit: new(rowLimit),
	}
	return m
}

func scriptNames(t *testing.T) map[string]string {
	t.Helper()
	const dir = "../internal/cache/"
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	entry, err := os.ReadFile(dir + "entry.lua")
	require.NoError(t, err)
	names := make(map[string]string)
	for _, file := range files {
		name, isLua := strings.CutSuffix(file.Name(), ".lua")
		if !isLua {
			continue
		}
		source, err := os.ReadFile(dir + file.Name())
		require.NoError(t, err)
		for _, text := range []string{string(source), string(entry) + string(source)} {
			sum := sha1.Sum([]byte(text))                               //nolint:gosec // as above
			names[hex.EncodeToString(sum[:])], names[text] = name, name // a script's first call sends its text
		}
	}
	return names
}

func (m *machine) exec(t require.TestingT, statement string, args ...any) {
	_, err := m.db.Exec(statement, args...)
	require.NoError(t, err)
}

// reset begins a run with empty servers.
func (m *machine) reset(t *rapid.T) {
	require.NoError(t, m.server.FlushDB(context.Background()).Err())
	m.exec(t, `DELETE FROM counters`)
	m.exec(t, `DELETE FROM refused`)
	m.keys = make(map[counter.Key]*modelKey)
	for i, key := range machineKeys {
		m.keys[key] = &modelKey{rows: []history{nil}, used: 10 * i}
	}
	m.flights, m.late, m.snapshots = nil, nil, nil
	m.outage, m.refusing, m.lossy = false, make(map[counter.Key]bool), false
	m.number, m.failure = 0, ""
	m.flusher.rowLimit.limit.Store(0)
	m.save(t)
}

// end ends what is still in flight, also after a failure.
func (m *machine) end() {
	for len(m.flights) > 0 {
		m.step(m.flights[0], crash)
	}
}

func (m *machine) failf(format string, args ...any) {
	if m.failure == "" {
		m.failure = fmt.Sprintf(format, args...)
	}
}

// look reads what Redis has of each key.
func (m *machine) look(t *rapid.T) map[counter.Key]observed {
	ctx := context.Background()
	pipe := m.server.Pipeline()
	type reply struct {
		entry *redis.StringCmd
		score *redis.FloatCmd
		ttl   *redis.DurationCmd
	}
	replies := make(map[counter.Key]reply)
	for _, key := range machineKeys {
		tag := "{aw:" + m.cache.Shard(key).String() + "}"
		entry := tag + ":c:" + string(key)
		replies[key] = reply{
			pipe.Get(ctx, entry), pipe.ZScore(ctx, tag+":dirty", string(key)), pipe.PTTL(ctx, entry),
		}
	}
	_, err := pipe.Exec(ctx)
	if err != nil && !errors.Is(err, redis.Nil) {
		require.NoError(t, err)
	}
	out := make(map[counter.Key]observed)
	for key, r := range replies {
		o := observed{dirty: r.score.Err() == nil, ttl: int64(r.ttl.Val())}
		if d := r.ttl.Val(); d > 0 {
			o.ttl = d.Milliseconds()
		}
		if e := localtest.EntryFields(r.entry.Val()); len(e) > 0 {
			o.present = true
			o.value, err = strconv.ParseInt(e["v"], 10, 64)
			require.NoError(t, err)
			o.version, err = strconv.ParseInt(e["n"], 10, 64)
			require.NoError(t, err)
			o.deleted, o.blind = e["x"] != "", e["u"] != ""
		}
		out[key] = o
	}
	return out
}

// noteRows looks at what an upsert of the given states has made of their rows. It is called within flights.
func (m *machine) noteRows(flown map[counter.Key]history) {
	for key, ops := range flown {
		k := m.keys[key]
		row := counter.Row{Key: key}
		err := m.db.QueryRow(`SELECT value, version, deleted_at IS NOT NULL, lineage FROM counters WHERE key = $1`, string(key)).
			Scan(&row.Value, &row.Version, &row.Deleted, &row.Lineage)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			m.failf("read the row of %s: %v", key, err)
			return
		}
		if row == k.seen {
			continue
		}
		value, deleted := ops.state()
		switch {
		case row.Version < k.seen.Version:
			m.failf("the row of %s went back: from %+v to %+v", key, k.seen, row)
		case row.Value != value || row.Deleted != deleted || row.Version != int64(len(ops)):
			m.failf("the row of %s became %+v, which is not %v", key, row, ops)
		case !k.row.within(ops):
			m.failf("postgres lost something of %s: %v became %v", key, k.row, ops)
		}
		k.seen, k.row = row, ops
		k.rows = append(k.rows, ops)
		k.must = k.must.union(ops)
	}
}

// snapshot is what Redis, and the model of it, were at some time.
type snapshot struct {
	dumps   map[string]dump
	entries map[counter.Key]cell
}

type dump struct {
	value string
	ttl   time.Duration
}

func (m *machine) save(t *rapid.T) {
	ctx := context.Background()
	s := snapshot{dumps: make(map[string]dump), entries: make(map[counter.Key]cell)}
	names, err := m.server.Keys(ctx, "{aw:*").Result()
	require.NoError(t, err)
	for _, name := range names {
		value, err := m.server.Dump(ctx, name).Result()
		if errors.Is(err, redis.Nil) {
			continue // it has expired
		}
		require.NoError(t, err)
		ttl, err := m.server.PTTL(ctx, name).Result()
		require.NoError(t, err)
		s.dumps[name] = dump{value, max(ttl, 0)}
	}
	for key, k := range m.keys {
		s.entries[key] = k.entry
	}
	m.snapshots = append(m.snapshots, s)
}

// restart gives Redis what a restart and a promotion give it: another master_replid. (A replica that is made a primary
// draws one; it never gets to speak to the one that it is told to follow.)
func (m *machine) restart(t *rapid.T) {
	ctx := context.Background()
	before := m.incarnation(t)
	require.NoError(t, m.server.Do(ctx, "REPLICAOF", "127.0.0.1", "1").Err())
	require.NoError(t, m.server.Do(ctx, "REPLICAOF", "NO", "ONE").Err())
	require.NotEqual(t, before, m.incarnation(t))
}

func (m *machine) incarnation(t *rapid.T) string {
	info, err := m.server.Info(context.Background(), "replication").Result()
	require.NoError(t, err)
	_, id, found := strings.Cut(info, "master_replid:")
	require.True(t, found)
	return id[:40]
}

// rollback brings a snapshot back. Those that were made after it are of a time that has never been, now.
func (m *machine) rollback(t *rapid.T, to int) {
	ctx := context.Background()
	s := m.snapshots[to]
	require.NoError(t, m.server.FlushDB(ctx).Err())
	for name, d := range s.dumps {
		require.NoError(t, m.server.Restore(ctx, name, d.ttl, d.value).Err())
	}
	m.snapshots = m.snapshots[:to+1]
	for key, entry := range maps.All(s.entries) {
		k := m.keys[key]
		k.entry = entry
		k.must = entry.ops.union(k.row)
	}
	m.lossy = true
}
