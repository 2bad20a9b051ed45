package writepath_test

import (
	"bufio"
	"context"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// beforeWait calls a function once, between the answer of the next script and its WAIT.
type beforeWait struct {
	mu sync.Mutex
	do func()
}

func (h *beforeWait) set(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.do = do
}

func (h *beforeWait) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *beforeWait) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *beforeWait) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "wait" {
			h.mu.Lock()
			do := h.do
			h.do = nil
			h.mu.Unlock()
			if do != nil {
				do()
			}
		}
		return next(ctx, cmd)
	}
}

// follow makes a server a replica of another, or with "NO ONE" a primary.
func follow(t *testing.T, server *local.Redis, primary string) {
	t.Helper()
	client, err := cache.Connect(server.URL(), 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	host, port, _ := strings.Cut(primary, " ")
	require.NoError(t, client.SlaveOf(t.Context(), host, port).Err())
}

// at returns the address of a server in the form of REPLICAOF.
func at(t *testing.T, server *local.Redis) string {
	t.Helper()
	u, err := url.Parse(server.URL())
	require.NoError(t, err)
	return u.Hostname() + " " + u.Port()
}

// Nothing that happens to the primary between a write and its WAIT makes the write durable.
func TestWriteIsNotDurableIfItsPrimaryChangesBeforeWAIT(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{AppendOnly: true, AppendFsync: "always"})
	b := setupDurable(t, primary)
	replica := b.replicaOf(t, primary)
	hook := &beforeWait{}
	b.redis.AddHook(hook)
	durable := func() error {
		return b.durably(t, writepath.OnReplicas, 20*time.Second, op(counter.Increment, "a", 1))[0].Err
	}
	again := func() {
		t.Helper()
		localtest.Eventually(t, 20*time.Second, func() (bool, string) { err := durable(); return err == nil, "it does not recover" })
	}
	again()

	hook.set(func() { // the restarted primary has the write, and the replica follows it again
		primary.Kill()
		require.NoError(t, primary.Start(t.Context()))
	})
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(durable()), "restarted")
	again()

	hook.set(func() { follow(t, replica, "NO ONE") })
	r := b.durably(t, writepath.OnReplicas, 200*time.Millisecond, op(counter.Increment, "a", 1))[0]
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(r.Err), "cut off from the promoted replica")

	hook.set(func() { follow(t, primary, at(t, replica)) })
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(durable()), "demoted")
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(durable()), "a replica accepts no writes")
}

// A connection pool may lead to two servers during a failover, so WAIT must use the connection of the write.
func TestWAITUsesTheConnectionOfItsWrites(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupDurable(t, primary)
	b.replicaOf(t, primary)
	commands := monitor(t, primary)
	var group sync.WaitGroup
	for i := range 50 {
		key := counter.Key(rune('a' + i%26))
		group.Go(func() {
			_ = b.service.Do(context.Background(), []counter.Operation{op(counter.Increment, key, 1)},
				writepath.Options{Durability: writepath.OnReplicas, Wait: 20 * time.Second})
		})
	}
	group.Wait()
	require.NoError(t, b.redis.Echo(t.Context(), "the end").Err())

	last, waits := make(map[string]string), 0
	for line := range commands {
		client, command := monitored(line)
		if command == "echo" {
			break
		}
		if command == "wait" { // one that times out is sent again
			waits++
			require.Contains(t, []string{"eval", "evalsha"}, last[client], "the last command of the connection before WAIT")
			continue
		}
		last[client] = command
	}
	require.Positive(t, waits)
}

// monitor returns the lines of MONITOR, without those of scripts.
func monitor(t *testing.T, server *local.Redis) <-chan string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Addr())
	require.NoError(t, err)
	u, err := url.Parse(server.URL())
	require.NoError(t, err)
	password, _ := u.User.Password()
	_, err = conn.Write([]byte("AUTH " + password + "\r\nMONITOR\r\n"))
	require.NoError(t, err)
	lines := bufio.NewReader(conn)
	for range 2 {
		answer, err := lines.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "+OK\r\n", answer)
	}
	out := make(chan string, 10_000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(out)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if !strings.Contains(line, " lua]") {
				out <- line
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-ended })
	return out
}

// monitored returns the client and the command of a line of MONITOR: +1339518083.107412 [0 127.0.0.1:60866] "keys" "*".
func monitored(line string) (client, command string) {
	_, rest, _ := strings.Cut(line, "[")
	client, rest, _ = strings.Cut(rest, "]")
	fields := strings.Split(rest, `"`)
	if len(fields) < 2 {
		return client, ""
	}
	return client, strings.ToLower(fields[1])
}

// blocked waits until so many clients of Redis are blocked.
func (b *testBundle) blocked(t *testing.T, clients string) {
	t.Helper()
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		info, err := b.redis.Info(t.Context(), "clients").Result()
		return err == nil && strings.Contains(info, "blocked_clients:"+clients+"\r\n"), info
	})
}

// While a replica hangs, writes that wait for it are bounded, and others are not affected.
func TestWritesDoNotPileUpBehindAReplicaThatHangs(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupDurable(t, primary)
	replica := b.replicaOf(t, primary)
	require.NoError(t, b.durably(t, writepath.OnReplicas, 20*time.Second, op(counter.Increment, "a", 1))[0].Err)
	require.NoError(t, syscall.Kill(replica.Pid(), syscall.SIGSTOP))

	const slots = 16
	results := make(chan counter.Result, slots)
	for i := range slots { // each is a call of its own
		go func() {
			results <- b.service.Do(context.Background(), []counter.Operation{op(counter.Increment, "a", 1)},
				writepath.Options{Durability: writepath.OnReplicas, Wait: 20 * time.Second})[0]
		}()
		b.blocked(t, []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"}[i])
	}
	for range 2 {
		r := b.durably(t, writepath.OnReplicas, 20*time.Second, op(counter.Increment, "b", 1))[0]
		require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(r.Err))
		require.ErrorContains(t, r.Err, "not applied")
	}
	require.NoError(t, b.do(t, op(counter.Increment, "a", 1))[0].Err, "a write that does not wait")
	require.False(t, b.do(t, op(counter.Get, "b", 0))[0].Counter.Exists)
	require.Empty(t, results)

	require.NoError(t, syscall.Kill(replica.Pid(), syscall.SIGCONT))
	for range slots {
		require.NoError(t, receive(t, results).Err, "the replica goes on")
	}
	require.NoError(t, b.durably(t, writepath.OnReplicas, 20*time.Second, op(counter.Increment, "b", 1))[0].Err)
}

// The writes of one call have different waits.
func TestWriteWaitsAsLongAsItAsksFor(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupDurable(t, primary)
	replica := b.replicaOf(t, primary)
	require.NoError(t, syscall.Kill(replica.Pid(), syscall.SIGSTOP))
	long := make(chan counter.Result, 1)
	go func() {
		long <- b.service.Do(context.Background(), []counter.Operation{op(counter.Increment, "a", 1)},
			writepath.Options{Durability: writepath.OnReplicas, Wait: 20 * time.Second})[0]
	}()
	b.blocked(t, "1")
	started := time.Now()
	r := b.durably(t, writepath.OnReplicas, 50*time.Millisecond, op(counter.Increment, "a", 1))[0]
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(r.Err))
	require.Less(t, time.Since(started), 10*time.Second)
	require.Empty(t, long)
	require.NoError(t, syscall.Kill(replica.Pid(), syscall.SIGCONT))
	require.NoError(t, receive(t, long).Err)
}

// AFTERWRITE_DURABILITY is for writes that do not say otherwise.
func TestConfiguredDurability(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{})
	b := setupDurable(t, primary)
	b.service = writepath.Open(writepath.Parts{
		Cache: b.cache, Bases: b.reads, Hints: b.hints, WaitReplicas: 1, Durability: writepath.OnReplicas,
	})
	t.Cleanup(b.service.Close)
	short := writepath.Options{Wait: 20 * time.Millisecond}
	one := func(o writepath.Options, op counter.Operation) error {
		return b.service.Do(t.Context(), []counter.Operation{op}, o)[0].Err
	}
	write := op(counter.Increment, "a", 1)
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(one(short, write)), "it waits for Postgres, which does not have it either")
	started := time.Now()
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(one(writepath.Options{}, write)))
	require.GreaterOrEqual(t, time.Since(started), 2*time.Second, "the default")
	require.Equal(t, counter.CodeNotDurable, counter.CodeOf(one(writepath.Options{Wait: short.Wait, Minimal: true}, op(counter.Increment, "cold", 1))))
	require.NoError(t, one(writepath.Options{Durability: writepath.InRedis}, write))
	require.NoError(t, one(writepath.Options{Durability: writepath.InRedis, Wait: short.Wait}, write), "it waits for Postgres only")
	require.NoError(t, one(writepath.Options{}, op(counter.Get, "a", 0)))

	b.flush(t)
	require.NoError(t, one(writepath.Options{Wait: 20 * time.Millisecond}, op(counter.Get, "a", 0)))
	result := b.waiting(t, write, writepath.Options{})
	localtest.Eventually(t, 20*time.Second, func() (bool, string) {
		return b.do(t, op(counter.Get, "a", 0))[0].Counter.Version == 5, "not written"
	})
	b.flush(t)
	r := receive(t, result)
	require.NoError(t, r.Err, "Postgres has it")
	require.True(t, r.Counter.Synced)

	b.replicaOf(t, primary)
	r = b.service.Do(t.Context(), []counter.Operation{write}, writepath.Options{})[0]
	require.NoError(t, r.Err)
	require.False(t, r.Counter.Synced)
	large := make([]counter.Operation, 600) // several calls
	for i := range large {
		large[i] = write
	}
	for _, r := range b.service.Do(t.Context(), large, writepath.Options{}) {
		require.NoError(t, r.Err)
	}
}

func TestConfiguredDurabilityThatRedisLacksIsNoFaultOfTheRequest(t *testing.T) {
	t.Parallel()
	b := setupDurable(t, localtest.OwnRedis(t, local.RedisOptions{}))
	b.service = writepath.Open(writepath.Parts{
		Cache: b.cache, Bases: b.reads, Hints: b.hints, WaitReplicas: 1, Durability: writepath.OnDisk,
	})
	t.Cleanup(b.service.Close)
	r := b.do(t, op(counter.Set, "a", 5))[0]
	require.Equal(t, counter.CodeCacheUnavailable, counter.CodeOf(r.Err))
	require.False(t, b.do(t, op(counter.Get, "a", 0))[0].Counter.Exists)
}
