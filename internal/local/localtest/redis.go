package localtest

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/afterwrite/afterwrite/internal/local"
)

// redisDatabases is the number of tests of one binary that may use the shared Redis at the same time.
const redisDatabases = 1024

var sharedRedis struct {
	once   sync.Once
	dir    string
	server *local.Redis
	err    error

	mu   sync.Mutex
	used int   // numbers below this have been used
	free []int // used numbers that are free again
}

// RedisURL returns the URL (redis://...) of an empty database in the shared Redis. No other test uses it until this test ends.
func RedisURL(t testing.TB) string {
	t.Helper()
	requireMain(t)
	s := &sharedRedis
	s.once.Do(func() {
		if s.dir, s.err = local.TempDir(dirPattern); s.err != nil {
			return
		}
		s.server, s.err = within(func(ctx context.Context) (*local.Redis, error) {
			return local.StartRedis(ctx, local.RedisOptions{Dir: filepath.Join(s.dir, dataName), Databases: redisDatabases})
		})
	})
	if s.err != nil {
		t.Fatalf("localtest: %v", s.err)
	}

	number := takeDatabase(t)
	t.Cleanup(func() { giveDatabaseBack(number) })
	url := s.server.DatabaseURL(number)
	client := newRedisClient(t, url)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), serverPatience)
	defer cancel()
	if err := client.FlushDB(ctx).Err(); err != nil {
		t.Fatalf("localtest: empty Redis database %d: %v\n%s", number, err, s.server.LastLog())
	}
	return url
}

// Redis returns a client for RedisURL that is closed when the test ends.
func Redis(t testing.TB) *redis.Client {
	t.Helper()
	client := newRedisClient(t, RedisURL(t))
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// OwnRedis starts a Redis for this test only, on TCP unless opts.Socket is set, and stops it when the test ends. If opts.Dir is empty,
// it uses a temporary folder. If the test fails, the last lines of the server's log are printed.
func OwnRedis(t testing.TB, opts local.RedisOptions) *local.Redis {
	t.Helper()
	return startOwn(t, &opts.Dir, func(ctx context.Context) (*local.Redis, error) { return local.StartRedis(ctx, opts) })
}

// Calls returns how often the server has run each command since its start. The keys are command names in lower case.
func Calls(t testing.TB, client redis.Cmdable) map[string]int {
	t.Helper()
	stats, err := client.Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatalf("localtest: %v", err)
	}
	calls := make(map[string]int)
	for line := range strings.Lines(stats) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		number, _, _ := strings.Cut(rest, ",")
		calls[name], _ = strconv.Atoi(number) // 0 for the heading
	}
	return calls
}

func takeDatabase(t testing.TB) int {
	t.Helper()
	s := &sharedRedis
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.used < redisDatabases {
		s.used++
		return s.used - 1
	}
	if len(s.free) == 0 {
		t.Fatalf("localtest: all %d Redis databases are in use", redisDatabases)
	}
	number := s.free[0]
	s.free = s.free[1:]
	return number
}

func giveDatabaseBack(number int) {
	sharedRedis.mu.Lock()
	defer sharedRedis.mu.Unlock()
	sharedRedis.free = append(sharedRedis.free, number)
}

func newRedisClient(t testing.TB, url string) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatalf("localtest: %v", err)
	}
	// A plain redis-server has no maintenance notifications; requesting them would only log an error.
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(opts)
}
