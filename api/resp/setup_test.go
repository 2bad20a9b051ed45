package resp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/catalog"
	"github.com/afterwrite/afterwrite/internal/config"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/process"
	"github.com/afterwrite/afterwrite/internal/store"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

func TestMain(m *testing.M) { localtest.Main(m) }

// patience bounds every wait of a test.
const patience = 20 * time.Second

// bundle is a server of the Redis protocol.
type bundle struct {
	*process.Servers // nil without setup

	server   *resp.Server
	service  *writepath.Service
	catalog  *catalog.Catalog
	addr     string
	registry *prometheus.Registry
	log      *localtest.Buffer
	stop     func() error // ends the server; later calls do nothing
}

// setup starts a server with the real write path, on a Redis and a Postgres database of this test.
func setup(t *testing.T, change ...func(o *resp.Options)) *bundle {
	t.Helper()
	return setupOn(t, localtest.RedisURL(t), change...)
}

// setupOn is setup with the Redis at an address.
func setupOn(t *testing.T, redisURL string, change ...func(o *resp.Options)) *bundle {
	t.Helper()
	url := localtest.PostgresURL(t, func(url string) error { return store.MigrateURL(context.Background(), url) })
	c, err := config.FromMap(map[string]string{
		"REDIS_URL": redisURL, "DATABASE_URL": url, "AFTERWRITE_SHARDS": "4",
	})
	require.NoError(t, err)
	s, err := process.Connect(c, slog.New(slog.DiscardHandler), process.Pools{Redis: 10, Postgres: 10, Writes: true})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	service := writepath.Open(writepath.Parts{
		Cache: s.Cache, Store: s.Store, BaseTimeout: patience, MaxDirty: 1_000_000, WaitReplicas: 1,
	})
	t.Cleanup(service.Close)
	b := &bundle{
		Servers: s, service: service, catalog: catalog.New(catalog.Options{Cache: s.Cache, Store: s.Store, Counters: service}),
	}
	o := resp.Options{Lister: b.catalog, Backlog: s.Cache.Backlog, Replicas: 1, Version: "1.2.3"}
	for _, f := range change {
		f(&o)
	}
	b.serve(t, service, o)
	return b
}

// serve starts a server with any Counters. It stops when the test ends.
func serve(t *testing.T, counters resp.Counters, o resp.Options, change ...func(s *resp.Server)) *bundle {
	t.Helper()
	b := new(bundle)
	b.serve(t, counters, o, change...)
	return b
}

func (b *bundle) serve(t *testing.T, counters resp.Counters, o resp.Options, change ...func(s *resp.Server)) {
	t.Helper()
	b.registry, b.log = prometheus.NewRegistry(), new(localtest.Buffer)
	o.Metrics, o.Logger = b.registry, slog.New(slog.NewJSONHandler(b.log, nil))
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b.addr, b.server = listener.Addr().String(), resp.New(counters, o)
	for _, f := range change {
		f(b.server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.server.Serve(ctx, listener, nil) }()
	stopped := false
	b.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { require.NoError(t, b.stop()) })
}

// counters implements resp.Counters with a function.
type counters func(ctx context.Context, ops []counter.Operation, options writepath.Options) []counter.Result

func (f counters) Do(ctx context.Context, ops []counter.Operation, options writepath.Options) []counter.Result {
	return f(ctx, ops, options)
}

// always returns Counters that give every operation the same result.
func always(r counter.Result) counters {
	return func(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
		results := make([]counter.Result, len(ops))
		for i := range ops {
			results[i] = r
			results[i].Counter.Key = ops[i].Key
		}
		return results
	}
}

// blocking returns Counters that send to inside, and then wait for finish, or ctx if it is nil.
func blocking(inside, finish chan struct{}) counters {
	return func(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
		inside <- struct{}{}
		select {
		case <-finish:
		case <-ctx.Done():
		}
		return always(ok)(ctx, ops, o)
	}
}

// ok is a result that every command can answer.
var ok = counter.Result{Counter: counter.Counter{Value: 1, Version: 1, Exists: true, Known: true}}

// wire is a connection without a client library.
type wire struct {
	net.Conn

	t testing.TB
	r *bufio.Reader
}

func (b *bundle) dial(t testing.TB) *wire {
	t.Helper()
	return dial(t, "tcp", b.addr)
}

func dial(t testing.TB, network, addr string) *wire {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), network, addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return &wire{conn, t, newReader(conn)}
}

// write sends bytes as they are.
func (w *wire) write(text string) {
	w.t.Helper()
	_, err := w.Write([]byte(text))
	require.NoError(w.t, err)
}

// encode returns a command with its words as arguments.
func encode(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	return b.String()
}

// encodeAll returns commands whose arguments are separated by spaces, one a string.
func encodeAll(commands ...string) string {
	var b strings.Builder
	for _, command := range commands {
		b.WriteString(encode(strings.Fields(command)...))
	}
	return b.String()
}

// read reads one reply: lines without CRLF joined by spaces, such as "*2 $1 a :1".
func (w *wire) read() string {
	w.t.Helper()
	reply, err := w.next()
	require.NoError(w.t, err)
	return reply
}

func (w *wire) next() (string, error) {
	line, err := w.r.ReadString('\n')
	if err != nil {
		return line, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	elements := 0
	switch line[0] {
	case '$':
		n, err := strconv.Atoi(line[1:])
		if err != nil || n < 0 {
			return line, err
		}
		text := make([]byte, n+2)
		if _, err := io.ReadFull(w.r, text); err != nil {
			return "", err
		}
		return string(text[:n]), nil
	case '*', '%':
		if elements, err = strconv.Atoi(line[1:]); err != nil {
			return "", err
		}
		if line[0] == '%' {
			elements *= 2
		}
	}
	all := []string{line}
	for range elements {
		element, err := w.next()
		if err != nil {
			return "", err
		}
		all = append(all, element)
	}
	return strings.Join(all, " "), nil
}

// do sends commands in one piece, and returns their replies.
func (w *wire) do(commands ...string) []string {
	w.t.Helper()
	w.write(encodeAll(commands...))
	replies := make([]string, len(commands))
	for i := range replies {
		replies[i] = w.read()
	}
	return replies
}

// one sends one command, and returns its reply.
func (w *wire) one(command string) string {
	w.t.Helper()
	return w.do(command)[0]
}

// ended reads until the server has ended the connection, and returns what came before.
func (w *wire) ended() (replies []string) {
	w.t.Helper()
	for {
		reply, err := w.next()
		if err != nil {
			var timeout net.Error
			require.False(w.t, errors.As(err, &timeout) && timeout.Timeout(), "the server did not end the connection")
			return replies
		}
		replies = append(replies, reply)
	}
}

// client returns a client of go-redis.
func (b *bundle) client(t *testing.T, change ...func(o *redis.Options)) *redis.Client {
	t.Helper()
	o := &redis.Options{Addr: b.addr, MaxRetries: -1, PoolSize: 4}
	for _, f := range change {
		f(o)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

// eventually waits until cond is true.
func (b *bundle) eventually(t *testing.T, cond func() bool) {
	t.Helper()
	localtest.Eventually(t, patience, func() (bool, string) { return cond(), "the condition is not true" })
}

// metric returns the sum of a metric over all labels.
func (b *bundle) metric(t *testing.T, name string) (sum float64) {
	t.Helper()
	for _, m := range b.family(t, name) {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
	}
	return sum
}

// series returns the number of label sets of a metric.
func (b *bundle) series(t *testing.T, name string) int {
	t.Helper()
	return len(b.family(t, name))
}

func (b *bundle) family(t *testing.T, name string) []*dto.Metric {
	t.Helper()
	families, err := b.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	return nil
}

// flush writes all dirty counters to Postgres, as a worker does.
func (b *bundle) flush(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	for shard := range counter.Shard(b.Cache.Shards()) {
		epoch, err := b.Cache.Seal(ctx, shard, cache.Taking{Owner: "test", Lease: time.Minute})
		require.NoError(t, err)
		keys, _, err := b.Cache.EpochKeys(ctx, &epoch, 0, 1000)
		require.NoError(t, err)
		if len(keys) == 0 {
			continue
		}
		snapshot, err := b.Cache.Read(ctx, shard, keys)
		require.NoError(t, err)
		rows := make([]counter.Row, len(keys))
		for i, e := range snapshot.Entries {
			rows[i] = e.Row
		}
		_, err = b.Store.Upsert(ctx, rows)
		require.NoError(t, err)
		_, done, err := b.Cache.Commit(ctx, &epoch)
		require.NoError(t, err)
		require.True(t, done)
	}
}
