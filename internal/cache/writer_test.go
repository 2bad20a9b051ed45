package cache_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
)

func redisZ(key counter.Key, score float64) redis.Z {
	return redis.Z{Score: score, Member: string(key)}
}

func TestConcurrentCallersShareCallsAndCountOnceEach(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "hot")
	const callers, each = 50, 40
	before := localtest.Calls(t, b.redis)["evalsha"]

	var group sync.WaitGroup
	versions := make(chan int64, callers*each)
	for range callers {
		group.Go(func() {
			for range each {
				o := b.writer.Do(context.Background(), []cache.Write{{Operation: increment("hot", 1)}})[0]
				if o.Err == nil {
					versions <- o.Version
				}
			}
		})
	}
	group.Wait()
	close(versions)

	seen := make(map[int64]bool)
	for v := range versions {
		require.False(t, seen[v], "version %d was answered twice", v)
		seen[v] = true
	}
	require.Len(t, seen, callers*each)
	require.Equal(t, strconv.Itoa(callers*each), b.entry(t, "hot")["v"])
	require.Less(t, localtest.Calls(t, b.redis)["evalsha"]-before, callers*each/2, "no calls were shared")
}

func TestSharedCallIsFollowedByAPause(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	const callers, pause = 30, 2 * time.Millisecond
	begin, began := make(chan struct{}), make(chan time.Time)
	w := b.cache.NewWriter(func() bool {
		began <- time.Now()
		<-begin
		return true
	})
	t.Cleanup(w.Close)
	var group sync.WaitGroup
	write := func() { w.Do(context.Background(), []cache.Write{{Operation: increment("a", 1)}}) }
	group.Go(write)
	<-began // later operations queue behind this call
	for range callers {
		group.Go(write)
	}
	for w.Queued() <= callers {
		runtime.Gosched()
	}
	before := time.Now()
	begin <- struct{}{}
	<-began // the call of the queued operations
	group.Go(write)
	begin <- struct{}{}
	require.GreaterOrEqual(t, (<-began).Sub(before), pause, "more callers may arrive and share the next call")
	begin <- struct{}{}
	group.Wait()
	require.Equal(t, strconv.Itoa(callers+2), b.entry(t, "a")["v"])
}

func TestCallerThatLeftGetsAnErrorAndLaterCallersAreServed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := b.writer.Do(ctx, []cache.Write{{Operation: increment("a", 1)}})[0]
	next := b.do(t, increment("a", 1))[0]
	require.NoError(t, next.Err)
	switch counter.CodeOf(o.Err) { // either may win
	case "": // the answer was faster
		require.Equal(t, int64(2), next.Value)
	case counter.CodeCacheUnavailable:
		require.Equal(t, int64(1), next.Value, "the answer was that nothing was applied")
	default:
		require.Equal(t, counter.CodeOutcomeUnknown, counter.CodeOf(o.Err))
	}
}

func TestFullQueueRefusesAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	release := make(chan struct{})
	entered := make(chan struct{}, 1)
	w := b.cache.NewWriter(func() bool {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		return true
	})
	t.Cleanup(w.Close)
	writes := make([]cache.Write, cache.MaxWrites)
	for i := range writes {
		writes[i] = cache.Write{Operation: increment("a", 1)}
	}
	var group sync.WaitGroup
	group.Go(func() { w.Do(context.Background(), writes[:1]) })
	<-entered // the writer is blocked in one call; all later operations queue
	refused := make(chan cache.Outcome, 1000)
	const requests = 100_000/cache.MaxWrites + 50
	for range requests {
		group.Go(func() {
			o := w.Do(context.Background(), writes)[0]
			if o.Err != nil {
				refused <- o
			}
		})
	}
	first := <-refused
	require.Equal(t, counter.CodeOverloaded, counter.CodeOf(first.Err))
	close(release)
	group.Wait()
	close(refused)
	applied := 1 + (requests-1-len(refused))*cache.MaxWrites
	require.Equal(t, strconv.Itoa(applied), b.entry(t, "a")["v"], "refused operations were not applied")
}

func TestClosedWriterHasAnsweredAllCallers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.warm(t, "a")
	w := b.cache.NewWriter(func() bool { return true })
	var group sync.WaitGroup
	var mu sync.Mutex
	applied := 0
	for range 100 {
		group.Go(func() {
			if o := w.Do(context.Background(), []cache.Write{{Operation: increment("a", 1)}})[0]; o.Err == nil {
				mu.Lock()
				applied++
				mu.Unlock()
			}
		})
	}
	w.Close()
	group.Wait()
	value := b.entry(t, "a")["v"]
	require.Equal(t, strconv.Itoa(applied), value)
	require.Error(t, w.Do(context.Background(), []cache.Write{{Operation: increment("a", 1)}})[0].Err)
}

func TestRedisURLForms(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]redis.UniversalOptions{
		"redis://:pw@h:1/2":                        {Addrs: []string{"h:1"}, Password: "pw", DB: 2},
		"unix:///tmp/redis.sock?db=3":              {Addrs: []string{"/tmp/redis.sock"}, DB: 3},
		"redis-sentinel://u:pw@a:1,b:2/4?master=m": {Addrs: []string{"a:1", "b:2"}, Username: "u", Password: "pw", DB: 4, MasterName: "m"},
		"redis-sentinel://:p%40w@a:1/0?master=m&sentinel_username=s%26u&sentinel_password=s%26p%2B": {
			Addrs: []string{"a:1"}, Password: "p@w", MasterName: "m", SentinelUsername: "s&u", SentinelPassword: "s&p+",
		},
		"redis-cluster://a:1,b:2": {Addrs: []string{"a:1", "b:2"}, IsClusterMode: true},
	} {
		got, err := cache.ParseURL(url)
		require.NoError(t, err, url)
		require.Equal(t, want, redis.UniversalOptions{
			Addrs: got.Addrs, Username: got.Username, Password: got.Password, DB: got.DB, MasterName: got.MasterName,
			IsClusterMode: got.IsClusterMode, SentinelUsername: got.SentinelUsername, SentinelPassword: got.SentinelPassword,
		}, url)
	}
	for _, url := range []string{
		"", "localhost:6379", "http://h", "redis://h:x/secret", "redis-sentinel://secret@a:1", "redis-cluster://a:1/%zz",
		"redis-sentinel://a:1/0?master=m&sentinel_password=%secret", "redis-sentinel://a:1/0?master=m&sentinel_password=a;secret",
	} {
		_, err := cache.ParseURL(url)
		require.ErrorContains(t, err, "REDIS_URL", url)
		require.NotContains(t, err.Error(), "secret")
	}
}

// A Redis accepts connections but does not answer: operations behind the first call must not wait for its time-out, too.
func TestSilentRedisDelaysOnlyTheFirstCall(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var conns sync.WaitGroup
	t.Cleanup(conns.Wait)
	t.Cleanup(func() { require.NoError(t, silent.Close()) })
	conns.Go(func() {
		for {
			conn, err := silent.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() })
		}
	})
	b := setupOn(t, "redis://"+silent.Addr().String())

	started := time.Now()
	codes := make(chan counter.Code, 1000)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			writes := make([]cache.Write, cache.MaxWrites)
			for i := range writes {
				writes[i] = cache.Write{Operation: increment("a", 1)}
			}
			for _, o := range b.writer.Do(context.Background(), writes)[:1] {
				codes <- counter.CodeOf(o.Err)
			}
		})
	}
	group.Wait()
	close(codes)
	for code := range codes {
		require.Contains(t, []counter.Code{counter.CodeOutcomeUnknown, counter.CodeCacheUnavailable}, code)
	}
	// Four calls one after the other would take four time-outs of 3 s.
	require.Less(t, time.Since(started), 10*time.Second)
}
