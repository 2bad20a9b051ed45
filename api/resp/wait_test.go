package resp_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/cache"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// levels implements resp.Counters. It confirms, or not, and remembers the options.
type levels struct {
	recorder

	options []writepath.Options
	late    bool // a durability is not confirmed
}

func (l *levels) Do(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
	l.options = append(l.options, o)
	results := l.recorder.Do(ctx, ops, o)
	for i := range results {
		if l.late && o.Durability != writepath.AsConfigured {
			results[i].Err = &counter.Error{Code: counter.CodeNotDurable}
		}
	}
	return results
}

func TestWAITAsksForTheDurabilityOfTheCommandsBeforeIt(t *testing.T) {
	t.Parallel()
	var l levels
	w := serve(t, &l, resp.Options{Replicas: 2}).dial(t)
	require.Equal(t, []string{":101", "+OK", ":2", ":101", "*2 :1 :0"}, w.do("INCR a", "SET b 1", "WAIT 1 500", "INCR a", "WAITAOF 1 0 100"))
	l.late = true
	require.Equal(t, []string{":101", ":0", ":101", "*2 :0 :0"}, w.do("INCR a", "WAIT 2 0", "INCR a", "WAITAOF 1 0 0"))
	require.Equal(t, []writepath.Options{
		{Durability: writepath.OnReplicas, Wait: 500 * time.Millisecond},
		{Durability: writepath.OnDisk, Wait: 100 * time.Millisecond},
		{Durability: writepath.OnReplicas, Wait: 30 * time.Second},
		{Durability: writepath.OnDisk, Wait: 30 * time.Second},
	}, round(l.options))

	l.options = nil
	require.Equal(t, []string{"100", ":2"}, w.do("GET a", "WAIT 1 500"))
	require.Equal(t, []writepath.Options{{}}, l.options, "a read does not wait for Postgres")
}

// round returns options with whole seconds of long waits: all waits of a pipeline together are bounded, so each is a little shorter.
func round(options []writepath.Options) []writepath.Options {
	for i := range options {
		if options[i].Wait > time.Second {
			options[i].Wait = options[i].Wait.Round(time.Second)
		}
	}
	return options
}

// The buffer of a new connection has 1 KiB, and grows to 16 KiB.
func TestWAITCoversAPipelineThatDoesNotFitIntoTheBuffer(t *testing.T) {
	t.Parallel()
	var l levels
	w := serve(t, &l, resp.Options{Replicas: 2}).dial(t)
	var commands []string
	for i := range resp.MaxOperations {
		commands = append(commands, fmt.Sprintf("SET %s%03d 1", strings.Repeat("k", 40), i))
	}
	replies := w.do(append(commands, "WAIT 1 100")...)
	require.Equal(t, ":2", replies[len(commands)])
	require.Equal(t, []writepath.Options{{Durability: writepath.OnReplicas, Wait: 100 * time.Millisecond}}, l.options)
}

func TestWaitsOfAPipelineAreBoundedTogether(t *testing.T) {
	t.Parallel()
	const bound = 100 * time.Millisecond
	var sum time.Duration
	w := serve(t, counters(func(ctx context.Context, ops []counter.Operation, o writepath.Options) []counter.Result {
		sum += o.Wait
		timer := time.NewTimer(o.Wait)
		defer timer.Stop()
		<-timer.C
		return always(ok)(ctx, ops, o)
	}), resp.Options{}, resp.WithLimits(resp.Limits{Wait: bound})).dial(t)
	const commands = 20
	replies := w.do(slices.Repeat([]string{"AW.WAIT a 0"}, commands)...)
	require.Equal(t, slices.Repeat([]string{":0"}, commands), replies)
	require.LessOrEqual(t, sum, bound+commands*time.Millisecond)
}

func TestWAITConfirmsNoWriteThatWasRefused(t *testing.T) {
	t.Parallel()
	w := serve(t, failing(counter.CodeUnsupportedDurability), resp.Options{Replicas: 2}).dial(t)
	replies := w.do("INCR a", "WAIT 1 100")
	require.Contains(t, replies[0], "-ERR unsupported_durability")
	require.Equal(t, ":0", replies[1])
}

func TestWAITIsRefusedForCommandsThatWereAnsweredBefore(t *testing.T) {
	t.Parallel()
	var l levels
	w := serve(t, &l, resp.Options{Replicas: 2}).dial(t)
	require.Equal(t, ":101", w.one("INCR a"))
	require.Contains(t, w.one("WAIT 1 500"), "-ERR WAIT cannot confirm the earlier writes of this connection")
	require.Equal(t, []string{":101", ":2"}, w.do("INCR a", "WAIT 1 500"))
	require.Equal(t, "100", w.one("GET a"))
	require.Equal(t, ":2", w.one("WAIT 1 500"), "there is no write")

	w = serve(t, &l, resp.Options{Replicas: 2, Durability: writepath.OnReplicas}).dial(t)
	require.Equal(t, ":101", w.one("INCR a"))
	require.Equal(t, ":2", w.one("WAIT 1 500"), "no write is answered before it is on the replicas")
}

func TestRedisWithoutReplicasConfirmsNothing(t *testing.T) {
	t.Parallel()
	w := setup(t).dial(t)
	require.Equal(t, []string{":1", ":0", "1"}, w.do("INCR a", "WAIT 1 10", "GET a"))
}

func TestAWWAITAnswersWhenPostgresHasTheCounter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w := b.dial(t)
	require.Equal(t, []string{":1", ":0", ":1"}, w.do("INCR a", "AW.WAIT a 10", "AW.WAIT never 10"))
	w.write(encodeAll("AW.WAIT a 20000"))
	b.flush(t)
	require.Equal(t, ":1", w.read())
}

func TestWAITCountsARealReplica(t *testing.T) {
	t.Parallel()
	primary := localtest.OwnRedis(t, local.RedisOptions{Password: "secret"})
	b := setupOn(t, primary.URL())
	w := b.dial(t)
	require.Equal(t, []string{":1", ":0"}, w.do("INCR a", "WAIT 1 50"), "there is no replica")

	host, port, err := net.SplitHostPort(primary.Addr())
	require.NoError(t, err)
	server, err := cache.Connect(primary.URL(), 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	require.NoError(t, server.ConfigSet(t.Context(), "repl-diskless-sync-delay", "0").Err())
	replica := localtest.OwnRedis(t, local.RedisOptions{Args: []string{"--replicaof", host + " " + port, "--masterauth", "secret"}})
	localtest.Eventually(t, patience, func() (bool, string) {
		info, err := server.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "state=online"), info
	})
	require.Equal(t, []string{":2", "+OK", ":1"}, w.do("INCR a", "SET b 7", "WAIT 1 20000"))

	require.NoError(t, syscall.Kill(replica.Pid(), syscall.SIGSTOP))
	late := w.do("INCR a", "WAIT 1 50")
	require.NoError(t, syscall.Kill(replica.Pid(), syscall.SIGCONT))
	require.Equal(t, []string{":3", ":0"}, late, "the replica is connected, but does not answer; the write is applied")
	require.Equal(t, []string{":4", ":1"}, w.do("INCR a", "WAIT 1 20000"))
}
