package convert_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/convert"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func TestMain(m *testing.M) {
	localtest.Main(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

const patience = 30 * time.Second

var testContext = context.Background() // for functions that have no test

func sorted(texts []string) []string {
	slices.Sort(texts)
	return texts
}

// fixture is testdata/layout2.json: the data and the answers of the previous version. See testdata/layout2.go.
type fixture struct {
	Redis []struct {
		Key   string          `json:"key"`
		Type  string          `json:"type"`
		TTL   int64           `json:"ttl_ms"`
		Value json.RawMessage `json:"value"`
	} `json:"redis"`
	Rows    []row             `json:"rows"`
	Answers map[string]answer `json:"answers"`
	Replays []struct {
		Key    counter.Key `json:"key"`
		Op     string      `json:"op"`
		Amount int64       `json:"amount"`
		ID     string      `json:"id"`
		Answer answer      `json:"answer"`
	} `json:"replays"`
	After []row `json:"rows_after"`
}

type row struct {
	Key     counter.Key `json:"key"`
	Value   int64       `json:"value"`
	Version int64       `json:"version"`
	Deleted bool        `json:"deleted"`
	Lineage int64       `json:"lineage"`
	Base    int64       `json:"base"`
}

func (r row) row() counter.Row {
	return counter.Row{
		Key: r.Key, Value: r.Value, Version: r.Version, Deleted: r.Deleted, Lineage: r.Lineage, Base: r.Base,
	}
}

type answer struct {
	Status  int   `json:"status"`
	Value   int64 `json:"value"`
	Version int64 `json:"version"`
	Synced  bool  `json:"synced"`
}

func readFixture(t *testing.T) *fixture {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "layout2.json"))
	require.NoError(t, err)
	var f fixture
	require.NoError(t, json.Unmarshal(text, &f))
	return &f
}

// row returns the row of a key before the conversion.
func (f *fixture) row(key counter.Key) (row, bool) {
	for _, r := range f.Rows {
		if r.Key == key {
			return r, true
		}
	}
	return row{}, false
}

// load writes the fixture to an empty Redis.
func (f *fixture) load(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	now, err := client.Time(t.Context()).Result()
	require.NoError(t, err)
	pipe := client.Pipeline()
	for _, k := range f.Redis {
		switch k.Type {
		case "string":
			pipe.Set(t.Context(), k.Key, parse[string](t, k.Value), 0)
		case "hash":
			pipe.HSet(t.Context(), k.Key, parse[map[string]string](t, k.Value))
		case "list":
			pipe.RPush(t.Context(), k.Key, parse[[]string](t, k.Value))
		case "zset":
			for member, score := range parse[map[string]any](t, k.Value) {
				z := redis.Z{Member: member, Score: 1 << 52}
				if ms, ok := score.(float64); ok {
					z.Score = float64(now.UnixMilli()) + ms
				}
				pipe.ZAdd(t.Context(), k.Key, z)
			}
		}
		if k.TTL > 0 {
			pipe.PExpire(t.Context(), k.Key, time.Duration(k.TTL)*time.Millisecond)
		}
	}
	_, err = pipe.Exec(t.Context())
	require.NoError(t, err)
}

func parse[T any](t *testing.T, text json.RawMessage) (value T) {
	t.Helper()
	require.NoError(t, json.Unmarshal(text, &value))
	return value
}

// testBundle is a Redis that the previous version wrote.
type testBundle struct {
	*fixture

	url   string
	redis redis.UniversalClient
	log   *localtest.Buffer
}

func setup(t *testing.T) *testBundle {
	t.Helper()
	return setupOn(t, localtest.RedisURL(t))
}

func setupOn(t *testing.T, url string) *testBundle {
	t.Helper()
	b := &testBundle{fixture: readFixture(t), url: url, redis: connect(t, url), log: new(localtest.Buffer)}
	b.load(t, b.redis)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(b.log.String())
		}
	})
	return b
}

func connect(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	client, err := cache.Connect(url, 10)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func (b *testBundle) options() convert.Options {
	return convert.Options{Redis: b.redis, Logger: slog.New(slog.NewTextHandler(b.log, nil))}
}

// convert converts to this number of shards, and returns a cache.
func (b *testBundle) convert(t *testing.T, shards int) *cache.Cache {
	t.Helper()
	options := b.options()
	options.Shards = shards
	done, err := convert.Run(t.Context(), options)
	require.NoError(t, err)
	require.True(t, done.Done)
	return b.cache(t, shards)
}

func (b *testBundle) cache(t *testing.T, shards int) *cache.Cache {
	t.Helper()
	c := cache.New(b.redis, cache.Options{Shards: shards, CleanTTL: time.Hour})
	require.NoError(t, c.CheckMeta(t.Context()))
	return c
}

// dump returns all keys and their values, without those that differ from run to run, such as times and epochs.
func (b *testBundle) dump(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	names, err := b.redis.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	for _, name := range names {
		all[name] = b.describe(t, name)
	}
	delete(all, cache.SettingsKey)
	return all
}

func (b *testBundle) describe(t *testing.T, name string) string {
	t.Helper()
	var value any
	switch kind := b.redis.Type(t.Context(), name).Val(); kind {
	case "string":
		text := b.redis.Get(t.Context(), name).Val()
		if strings.HasSuffix(name, "}:meta") {
			open, rest, _ := strings.Cut(text, " ")
			since, _, _ := strings.Cut(rest, " ")
			text = strconv.Itoa(len(open)) + " " + strconv.Itoa(len(since))
		}
		if fields := strings.Split(text, " "); strings.Contains(name, "}:c:") && len(fields) > 2 {
			epoch, flags, _ := strings.Cut(fields[2], ":")
			if epoch != "0" {
				fields[2] = "E:" + flags
			}
			text = strings.Join(fields, " ")
		}
		value = text
	case "hash":
		value = b.redis.HGetAll(t.Context(), name).Val()
	case "set":
		value = sorted(b.redis.SMembers(t.Context(), name).Val())
	case "zset":
		value = sorted(b.redis.ZRange(t.Context(), name, 0, -1).Val())
	default:
		value = kind
	}
	text, err := json.Marshal(value)
	require.NoError(t, err)
	ttl := b.redis.PTTL(t.Context(), name).Val()
	return string(text) + " ttl " + strconv.FormatBool(ttl > 0)
}
