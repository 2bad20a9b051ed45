package worker

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
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
	"github.com/afterwrite/afterwrite/internal/mapping"
	"github.com/afterwrite/afterwrite/internal/operate"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

const (
	machineShards = 2
	machineBatch  = 3
)

// machineKeys are few, so that steps interact: two are in one shard, and the second counts downwards.
var machineKeys = []counter.Key{"a", "b", "c"}

// machineMappings map two of them to columns. The rows may exist or not.
const machineMappings = `
mappings:
  - {name: a, key: "a", table: public.mapped, where: {key: a}, set: n, missing: ignore}
  - {name: b, key: "b", table: public.mapped, where: {key: b}, set: n, missing: insert}
`

// beginning is the column of a counter before a run.
type beginning int

const (
	noRow    beginning = iota
	emptyRow           // with NULL
	zeroRow            // with 0
	startRow           // with a value, which the counter adopts
)

// someStart is above the sum of all amounts.
const someStart = int64(1) << (2 * (lastAmount + 1))

// machine is a write path, a worker, and the model. The test decides when each call to a server is carried out.
type machine struct {
	server  redis.UniversalClient // without gates
	cache   *cache.Cache
	flusher *Flusher
	retries *retries
	service *writepath.Service
	without *writepath.Service // of an api that runs without the mappings
	store   gatedStore
	db      *sql.DB
	scripts map[string]string // names by hash
	instead map[string]string // replacement hashes, by hash

	used      []counter.Key // in this run
	keys      map[counter.Key]*modelKey
	letters   map[counter.Key]operate.DeadLetter // shown to an operator
	answers   map[string]counter.Counter         // of operations with IDs, by key and ID
	ids       []counter.Operation                // that were sent with IDs
	flights   []*flight
	late      []lateCall
	snapshots []snapshot
	outage    bool
	refusing  map[counter.Key]bool
	locked    map[counter.Key]bool
	lossy     bool   // Redis has lost writes in this run
	run       string // the incarnation of Redis
	number    int
	failure   string
	rowLog    []string // changes of rows, for the log
}

func migrateMachine(url string) error { return store.MigrateURL(context.Background(), url) }

// newMachine starts the servers; reset begins a run.
func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{}
	redisURL := localtest.OwnRedis(t, local.RedisOptions{}).URL()
	postgresURL := localtest.PostgresURL(t, migrateMachine)
	connect := func() redis.UniversalClient {
		client, err := cache.Connect(redisURL, 20)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		return client
	}
	m.server = connect()
	m.loadScripts(t)
	gated := connect()
	gated.AddHook(redisGates{m})
	mappings, err := mapping.Parse([]byte(machineMappings))
	require.NoError(t, err)
	open := func(mappings *mapping.Mappings) *store.Store {
		pg, err := store.Open(postgresURL, store.Options{Logger: slog.New(slog.DiscardHandler), MaxConns: 4, Mappings: mappings})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, pg.Close()) })
		return pg
	}
	m.db, err = sql.Open("postgres", postgresURL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.db.Close()) })
	m.exec(t, `CREATE TABLE public.mapped (key text PRIMARY KEY, n bigint)`)
	m.exec(t, `CREATE TABLE refused (key text, place text)`)
	m.exec(t, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF EXISTS (SELECT FROM refused WHERE key = NEW.key AND place = TG_TABLE_NAME) THEN RAISE check_violation; END IF;
		RETURN NEW; END $$`)
	m.exec(t, `CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION refuse()`)
	m.exec(t, `CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON public.mapped FOR EACH ROW EXECUTE FUNCTION refuse()`)
	m.build(t, gated, gatedStore{Store: open(mappings), m: m}, gatedStore{Store: open(nil), m: m})
	return m
}

// build makes the parts under test.
func (m *machine) build(t *testing.T, gated redis.UniversalClient, gate, without gatedStore) {
	t.Helper()
	logger, registry := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	m.store = gate
	m.cache = cache.New(gated, cache.Options{Shards: machineShards, CleanTTL: time.Hour, History: isRecorded})
	m.service = writepath.Open(writepath.Parts{Cache: m.cache, Bases: gate})
	t.Cleanup(m.service.Close)
	m.without = writepath.Open(writepath.Parts{Cache: m.cache, Bases: without})
	t.Cleanup(m.without.Close)
	metrics := newMetrics(registry, logger, nil, gate.Up)
	m.retries = &retries{
		cache: m.cache, sender: asynq.NewClientFromRedisClient(m.server),
		inspector: asynq.NewInspectorFromRedisClient(m.server), metrics: metrics, logger: logger,
		maxAttempts: 2, backoff: time.Minute, sweepInterval: time.Minute,
	}
	m.flusher = &Flusher{
		cache: m.cache, store: gate, retries: m.retries, metrics: metrics, logger: logger,
		batching: newBatching(machineBatch, time.Second, registry), deferred: newDeferrals(),
	}
}

// machineScripts runs mutants of scripts without compiling.
var machineScripts = flag.String("machine.scripts", "", "folder with scripts to be run instead of those in internal/cache")

// loadScripts loads all scripts into Redis, so that each run is one call, and records their names.
func (m *machine) loadScripts(t *testing.T) {
	t.Helper()
	m.scripts, m.instead = make(map[string]string), make(map[string]string)
	own := m.loadFolder(t, "../internal/cache")
	if *machineScripts == "" {
		return
	}
	for name, hash := range m.loadFolder(t, *machineScripts) {
		m.instead[own[name]] = hash
	}
}

// loadFolder loads the scripts of a folder into Redis, and returns their hashes by name.
func (m *machine) loadFolder(t *testing.T, folder string) map[string]string {
	t.Helper()
	texts, err := cache.Scripts(os.DirFS(folder))
	require.NoError(t, err)
	hashes := make(map[string]string)
	for name, text := range texts {
		hash, err := m.server.ScriptLoad(context.Background(), text).Result()
		require.NoError(t, err)
		m.scripts[hash], hashes[name] = name, hash
	}
	return hashes
}

func (m *machine) exec(t require.TestingT, statement string, args ...any) {
	_, err := m.db.Exec(statement, args...)
	require.NoError(t, err)
}

// reset begins a run with empty servers. batch is the number of rows of one statement. Keys without a beginning have a row with 0.
func (m *machine) reset(t rapid.TB, batch int, columns map[counter.Key]beginning) {
	require.NoError(t, m.server.FlushDB(context.Background()).Err())
	m.exec(t, `DELETE FROM counters`)
	m.exec(t, `DELETE FROM operations`)
	m.exec(t, `DELETE FROM refused`)
	m.exec(t, `DELETE FROM mapped`)
	m.keys = make(map[counter.Key]*modelKey)
	for i, key := range machineKeys {
		k := &modelKey{used: 10 * i, flown: make(map[int64][]history)}
		column, drawn := columns[key]
		switch {
		case key == "c": // has no mapping
		case !drawn, column == zeroRow:
			m.exec(t, `INSERT INTO mapped VALUES ($1, 0)`, string(key))
		case column == emptyRow:
			m.exec(t, `INSERT INTO mapped VALUES ($1, NULL)`, string(key))
		case column == startRow:
			m.exec(t, `INSERT INTO mapped VALUES ($1, $2)`, string(key), someStart)
			k.row = history{{kind: counter.Set, amount: someStart}}
		}
		k.must, k.rows = k.row, []history{k.row}
		m.keys[key] = k
	}
	m.used, m.letters = machineKeys, make(map[counter.Key]operate.DeadLetter)
	m.flights, m.late, m.snapshots = nil, nil, nil
	m.answers, m.ids = make(map[string]counter.Counter), nil
	m.outage, m.lossy = false, false
	m.refusing, m.locked = make(map[counter.Key]bool), make(map[counter.Key]bool)
	m.number, m.failure, m.rowLog = 0, "", nil
	m.run = m.incarnation(t)[:8]
	m.flusher.deferred = newDeferrals()
	clear(m.flusher.batching.limits)
	m.flusher.batching.slow = false
	m.flusher.batching.size = batch
	m.save(t)
}

// end ends all flights, even after a failure.
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

// snapshot is the state of Redis and its model at one time.
type snapshot struct {
	dumps   map[string]dump
	entries map[counter.Key]cell
	answers map[string]counter.Counter
}

type dump struct {
	value string
	ttl   time.Duration
}

func (m *machine) save(t rapid.TB) {
	ctx := context.Background()
	s := snapshot{dumps: make(map[string]dump), entries: make(map[counter.Key]cell), answers: maps.Clone(m.answers)}
	names, err := m.server.Keys(ctx, "{aw:*").Result()
	require.NoError(t, err)
	values, ttls := make([]*redis.StringCmd, len(names)), make([]*redis.DurationCmd, len(names))
	_, err = m.server.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, name := range names {
			values[i], ttls[i] = pipe.Dump(ctx, name), pipe.PTTL(ctx, name)
		}
		return nil
	})
	if !errors.Is(err, redis.Nil) { // one has expired
		require.NoError(t, err)
	}
	for i, name := range names {
		if values[i].Err() == nil {
			s.dumps[name] = dump{values[i].Val(), max(ttls[i].Val(), 0)}
		}
	}
	for key, k := range m.keys {
		s.entries[key] = k.entry
	}
	m.snapshots = append(m.snapshots, s)
}

// restart gives Redis what a restart and a promotion give it: another master_replid. (A replica that is made a primary
// draws one; it never gets to speak to the one that it is told to follow.)
func (m *machine) restart(t rapid.TB) {
	ctx := context.Background()
	before := m.incarnation(t)
	require.NoError(t, m.server.Do(ctx, "REPLICAOF", "127.0.0.1", "1").Err())
	require.NoError(t, m.server.Do(ctx, "REPLICAOF", "NO", "ONE").Err())
	m.run = m.incarnation(t)[:8]
	require.NotEqual(t, before[:8], m.run)
	for _, k := range m.keys {
		k.floor = slices.DeleteFunc(slices.Clone(k.row), func(w *written) bool { return w.start() })
	}
}

func (m *machine) incarnation(t rapid.TB) string {
	info, err := cache.ReadInfo(context.Background(), m.server, "replication")
	require.NoError(t, err)
	require.NotEmpty(t, info.Incarnation)
	return info.Incarnation
}

// rollback restores a snapshot, and drops the snapshots made after it.
func (m *machine) rollback(t rapid.TB, to int) {
	ctx := context.Background()
	s := m.snapshots[to]
	_, err := m.server.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.FlushDB(ctx)
		for name, d := range s.dumps {
			pipe.Restore(ctx, name, d.ttl, d.value)
		}
		return nil
	})
	require.NoError(t, err)
	m.snapshots = m.snapshots[:to+1]
	m.answers = maps.Clone(s.answers)
	for key, entry := range s.entries {
		k := m.keys[key]
		k.entry = entry
		k.must = entry.ops.union(k.row)
	}
	m.lossy = true
}
