package cache

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

var (
	usedDesc = prometheus.NewDesc("afterwrite_redis_memory_used_bytes",
		"Memory that Redis uses; on a cluster, of the node that is nearest to its maxmemory.", nil, nil)
	maxDesc = prometheus.NewDesc("afterwrite_redis_memory_max_bytes",
		"The maxmemory of that Redis; 0: it has none.", nil, nil)
	aofDesc = prometheus.NewDesc("afterwrite_redis_aof_enabled",
		"1 while Redis, on a cluster every node, writes an append-only file, else 0.", nil, nil)
	aofWriteDesc = prometheus.NewDesc("afterwrite_redis_aof_last_write_ok",
		"0 while the last write to the append-only file of Redis, on a cluster of any node, has failed, else 1.", nil, nil)
	aofRewriteDesc = prometheus.NewDesc("afterwrite_redis_aof_last_rewrite_ok",
		"0 while the last rewrite of the append-only file of Redis, on a cluster of any node, has failed, else 1.", nil, nil)
)

// state is what a node says about its memory and its append-only file.
type state struct {
	used, max                   int64 // bytes
	told                        bool  // of its append-only file; while it loads, what it says of that is not so
	aof, lastWrite, lastRewrite bool
}

// StateCollector exports how Redis itself is. It asks Redis at most once a second. What Redis does not tell, because it is away
// or an ACL forbids us to ask, is not exported; whether it is up is the Collector's.
type StateCollector struct {
	cache *Cache

	mu    sync.Mutex
	nodes []state
	at    time.Time
}

// NewStateCollector returns a StateCollector for the Redis of c.
func (c *Cache) NewStateCollector() *StateCollector { return &StateCollector{cache: c} }

// Describe implements prometheus.Collector.
func (*StateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{usedDesc, maxDesc, aofDesc, aofWriteDesc, aofRewriteDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector. It blocks for at most two seconds.
func (c *StateCollector) Collect(ch chan<- prometheus.Metric) {
	nodes := c.sample()
	if len(nodes) == 0 {
		return
	}
	s := worst(nodes)
	gauge(ch, usedDesc, float64(s.used))
	gauge(ch, maxDesc, float64(s.max))
	if !s.told {
		return
	}
	gauge(ch, aofDesc, number(s.aof))
	gauge(ch, aofWriteDesc, number(s.lastWrite))
	gauge(ch, aofRewriteDesc, number(s.lastRewrite))
}

func (c *StateCollector) sample() []state {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) >= sampleAge {
		ctx, cancel := context.WithTimeout(context.Background(), sampleTimeout)
		defer cancel()
		c.nodes = c.cache.states(ctx)
		c.at = time.Now()
	}
	return c.nodes
}

// states asks Redis, on a cluster every master, and returns what those say that answer.
func (c *Cache) states(ctx context.Context) []state {
	var mu sync.Mutex
	var all []state
	ask := func(ctx context.Context, node redis.Cmdable) error {
		s, err := nodeState(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			all = append(all, s)
		}
		return err
	}
	if cluster, ok := c.client.(*redis.ClusterClient); ok {
		// It asks them all, also after an error.
		_ = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return ask(ctx, node) })
	} else {
		_ = ask(ctx, c.client)
	}
	return all
}

// MemoryUse is the part of its maxmemory that Redis uses, on a cluster the fullest master that answers; 0 where there is no
// limit. One command to each master.
func (c *Cache) MemoryUse(ctx context.Context) (float64, error) {
	nodes, err := c.nodes(ctx)
	if err != nil {
		return 0, err
	}
	var most float64
	for _, node := range nodes {
		info, askErr := node.InfoMap(ctx, "memory").Result()
		if askErr != nil {
			err = fmt.Errorf("ask redis for its memory: %w", askErr)
			continue
		}
		var s state
		if s.used, err = integer(info["Memory"], "used_memory"); err != nil {
			return 0, err
		}
		s.max, _ = integer(info["Memory"], "maxmemory")
		most = max(most, fullness(s))
	}
	if most > 0 {
		return most, nil
	}
	return 0, err
}

func nodeState(ctx context.Context, node redis.Cmdable) (state, error) {
	// All sections: before Redis 7 it takes one name at most.
	info, err := node.InfoMap(ctx).Result()
	if err != nil {
		return state{}, fmt.Errorf("ask redis how it is: %w", err)
	}
	memory, persistence := info["Memory"], info["Persistence"]
	s := state{
		told:        persistence["aof_enabled"] != "" && persistence["loading"] != "1",
		aof:         persistence["aof_enabled"] == "1",
		lastWrite:   persistence["aof_last_write_status"] != "err",
		lastRewrite: persistence["aof_last_bgrewrite_status"] != "err",
	}
	if s.used, err = integer(memory, "used_memory"); err != nil {
		return state{}, err
	}
	// A service that hides its maxmemory is taken for one without.
	s.max, _ = integer(memory, "maxmemory")
	return s, nil
}

func integer(section map[string]string, name string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(section[name]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s of redis: %w", name, err)
	}
	return n, nil
}

// worst is the state that a cluster of at least one node is in: its memory is that of the fullest node.
func worst(nodes []state) state {
	w := state{used: nodes[0].used, max: nodes[0].max, aof: true, lastWrite: true, lastRewrite: true}
	for _, s := range nodes {
		if fullness(s) > fullness(w) {
			w.used, w.max = s.used, s.max
		}
		if s.told {
			w.told = true
			w.aof = w.aof && s.aof
			w.lastWrite = w.lastWrite && s.lastWrite
			w.lastRewrite = w.lastRewrite && s.lastRewrite
		}
	}
	return w
}

// fullness compares nodes: without a maxmemory nothing is full.
func fullness(s state) float64 {
	if s.max == 0 {
		return 0
	}
	return float64(s.used) / float64(s.max)
}
