package resp_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/afterwrite/afterwrite/api/resp"
	"github.com/afterwrite/afterwrite/internal/counter"
	"github.com/afterwrite/afterwrite/internal/local"
	"github.com/afterwrite/afterwrite/internal/local/localtest"
	"github.com/afterwrite/afterwrite/internal/writepath"
)

// recorder implements resp.Counters, and remembers each request as text.
type recorder struct {
	mu       sync.Mutex
	requests []string
}

func (r *recorder) Do(_ context.Context, ops []counter.Operation, _ writepath.Options) []counter.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	texts := make([]string, len(ops))
	results := make([]counter.Result, len(ops))
	for i, op := range ops {
		texts[i] = fmt.Sprintf("%s %s %d", op.Kind, op.Key, op.Amount)
		if op.Count > 0 {
			texts[i] += fmt.Sprintf(" in %d", op.Count)
		}
		results[i].Counter = counter.Counter{Key: op.Key, Value: 100 + op.Amount, Version: 1, Exists: true, Known: true}
	}
	r.requests = append(r.requests, strings.Join(texts, ", "))
	return results
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

func TestCommandsThatArriveTogetherAreOneRequestInOrder(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	require.Equal(t, []string{"+OK", ":102", "100", ":103", "*2 100 100", ":2"},
		w.do("SET a 1", "INCRBY b 2", "GET a", "INCRBY a 3", "MGET a b", "EXISTS a b"))
	require.Equal(t, []string{
		"set a 1, increment b 2, get a 0, increment a 3, get a 0, get b 0, get a 0, get b 0",
	}, r.all())
}

func TestCommandThatActsOnTheConnectionComesAfterTheCommandsBefore(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	require.Equal(t, []string{":101", "+PONG", ":102", "-ERR unknown command 'NOPE'", "100"},
		w.do("INCR a", "PING", "INCRBY a 2", "NOPE", "GET a"))
	require.Equal(t, []string{"increment a 1", "increment a 2", "get a 0"}, r.all())
}

func TestConsecutiveIncrementsOfACounterAreAddedUp(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	require.Equal(t, []string{":101", ":104", ":103", ":101", ":110", ":101"},
		w.do("INCR a", "INCRBY a 3", "DECR a", "INCR b", "INCRBY c 10", "DECRBY c 9"))
	require.Equal(t, []string{"increment a 3 in 3, increment b 1, increment c 1 in 2"}, r.all())
}

func TestIncrementsAreNotAddedUpIfTheirCounterHasAnotherOperation(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	w.do("INCR a", "INCR a", "INCR b", "INCR b", "GET a", "INCRBY c 20000000000", "INCR c", "INCR c")
	require.Equal(t, []string{
		"increment a 1, increment a 1, increment b 2 in 2, get a 0, increment c 20000000000, increment c 1, increment c 1",
	}, r.all(), "nor if the sum is large")
}

func TestSumIsNotSeparatedIntoTooManyOperations(t *testing.T) {
	t.Parallel()
	var r recorder
	w := serve(t, &r, resp.Options{}).dial(t)
	w.do(append(slices.Repeat([]string{"INCR a"}, 900), "GET a")...)
	for _, request := range r.all() { // the pipeline may arrive in several parts
		require.LessOrEqual(t, strings.Count(request, ",")+1, 250)
	}
}

func TestAddedUpIncrementsNearTheLargestValueAreAppliedOneByOne(t *testing.T) {
	t.Parallel()
	w := setup(t).dial(t)
	for _, sign := range []int64{1, -1} {
		end := int64(math.MaxInt64)
		if sign < 0 {
			end = math.MinInt64
		}
		require.Equal(t, "+OK", w.one(fmt.Sprintf("SET a %d", end-2*sign)))
		by := fmt.Sprintf("INCRBY a %d", sign)
		require.Equal(t, []string{
			":1", fmt.Sprintf(":%d", end-sign), fmt.Sprintf(":%d", end),
			"-ERR increment or decrement would overflow", "-ERR increment or decrement would overflow",
			fmt.Sprintf(":%d", end-5*sign), ":2",
		}, w.do(fmt.Sprintf("INCRBY b%d 1", sign), by, by, by, by, fmt.Sprintf("INCRBY a %d", -5*sign), fmt.Sprintf("INCRBY b%d 1", sign)))
		require.Equal(t, strconv.FormatInt(end-5*sign, 10), w.one("GET a"))
	}
}

func TestVersionGrowsByTheNumberOfIncrementsInASum(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.dial(t).do("INCR a", "INCR a", "INCR a")
	r := b.service.Do(t.Context(), []counter.Operation{{Key: "a", Kind: counter.Get}}, writepath.Options{})[0]
	require.NoError(t, r.Err)
	require.Equal(t, int64(3), r.Counter.Version)
}

// Four clients increment one counter through pipelines, and no answer is given twice.
func TestEveryIncrementOfConcurrentPipelinesHasItsOwnAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const clients, pipelines, length = 4, 20, 16
	var mu sync.Mutex
	seen := make(map[string]bool)
	var group sync.WaitGroup
	for range clients {
		w := b.dial(t)
		group.Go(func() {
			for range pipelines {
				replies := w.do(strings.Split(strings.Repeat("INCR hot\n", length), "\n")[:length]...)
				mu.Lock()
				for _, reply := range replies {
					seen[reply] = true
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	require.Len(t, seen, clients*pipelines*length)
	require.True(t, seen[fmt.Sprintf(":%d", clients*pipelines*length)])
}

// The commands that both have, in pipelines and transactions of any mix, have the same answers from a plain Redis.
func TestRandomPipelinesAnswerAsRedisDoes(t *testing.T) {
	t.Parallel()
	answersAsRedis(t, setup(t))
}

// On a cluster, the operations of a request go to several shards and masters.
func TestRandomPipelinesOnAClusterAnswerAsRedisDoes(t *testing.T) {
	t.Parallel()
	nodes, url := cluster(t)
	answersAsRedis(t, setupOn(t, url))
	for _, node := range nodes {
		require.Positive(t, node.DBSize(t.Context()).Val())
	}
}

// cluster starts a cluster of two masters with half of the slots each, and returns clients for them and its URL.
func cluster(t *testing.T) (nodes []*redis.Client, clusterURL string) {
	t.Helper()
	nodes = make([]*redis.Client, 2)
	for i, slots := range [][2]int{{0, 8191}, {8192, 16383}} {
		server := localtest.OwnRedis(t, local.RedisOptions{Password: "secret", Args: []string{"--cluster-enabled", "yes"}})
		o, err := redis.ParseURL(server.URL())
		require.NoError(t, err)
		nodes[i] = redis.NewClient(o)
		t.Cleanup(func() { require.NoError(t, nodes[i].Close()) })
		require.NoError(t, nodes[i].ConfigSet(t.Context(), "masterauth", "secret").Err())
		require.NoError(t, nodes[i].Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]).Err())
		require.NoError(t, nodes[i].Do(t.Context(), "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		clusterURL = strings.Replace(server.URL(), "redis://", "redis-cluster://", 1)
	}
	host, port, err := net.SplitHostPort(nodes[0].Options().Addr)
	require.NoError(t, err)
	require.NoError(t, nodes[1].Do(t.Context(), "CLUSTER", "MEET", host, port).Err())
	localtest.Eventually(t, patience, func() (bool, string) {
		for _, node := range nodes {
			info, err := node.ClusterInfo(t.Context()).Result()
			if err != nil || !strings.HasPrefix(info, "cluster_state:ok") || !strings.Contains(info, "cluster_size:2") {
				return false, info
			}
		}
		return true, ""
	})
	return nodes, clusterURL
}

// answersAsRedis sends random pipelines to a server and to a plain Redis, and compares the answers.
func answersAsRedis(t *testing.T, b *bundle) {
	t.Helper()
	ours, theirs := b.dial(t), dialRedis(t, localtest.RedisURL(t))
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		key := rapid.Custom(func(rt *rapid.T) string {
			return fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "key"), run)
		})
		n := rapid.SampledFrom([]string{"1", "-1", "5", "20000000000", "9223372036854775807", "-9223372036854775807", "4000000000000000000"})
		command := rapid.Custom(func(rt *rapid.T) string {
			k, v := key.Draw(rt, "k"), n.Draw(rt, "n")
			return rapid.SampledFrom([]string{
				"INCR " + k, "INCR " + k, "INCR " + k, "INCRBY " + k + " " + v, "DECRBY " + k + " " + v, "DECR " + k, "GET " + k,
				"SET " + k + " " + v, "SET " + k + " " + v + " NX", "SET " + k + " " + v + " XX GET", "SETNX " + k + " " + v,
				"GETSET " + k + " " + v, "DEL " + k + " " + key.Draw(rt, "other"), "MGET " + k + " " + key.Draw(rt, "other"),
				"MSET " + k + " " + v + " " + key.Draw(rt, "other") + " 3", "EXISTS " + k + " " + k, "STRLEN " + k, "TYPE " + k, "TTL " + k,
				"PING", "ECHO x",
			}).Draw(rt, "command")
		})
		commands := rapid.SliceOfN(command, 1, 30).Draw(rt, "pipeline")
		if rapid.IntRange(0, 3).Draw(rt, "transaction") == 0 {
			commands = without(commands, "PING", "ECHO x")
			commands = append(append([]string{"MULTI"}, commands...), "EXEC")
		}
		require.Equal(rt, theirs.do(commands...), ours.do(commands...), "%q", commands)
	})
}

// dialRedis connects to a plain Redis.
func dialRedis(t *testing.T, url string) *wire {
	t.Helper()
	o, err := redis.ParseURL(url)
	require.NoError(t, err)
	w := dial(t, o.Network, o.Addr)
	if o.Password != "" {
		require.Equal(t, "+OK", w.one("AUTH "+o.Password))
	}
	require.Equal(t, "+OK", w.one(fmt.Sprintf("SELECT %d", o.DB)))
	return w
}

// without returns the commands without some.
func without(commands []string, drop ...string) []string {
	return slices.DeleteFunc(slices.Clone(commands), func(command string) bool { return slices.Contains(drop, command) })
}
