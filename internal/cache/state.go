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
	redisUpDesc = prometheus.NewDesc("afterwrite_redis_up",
		"1 while Redis answers this process, else 0.", nil, nil)
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

// state is what Redis says about its memory and its append-only file.
type state struct {
	used, max                   int64 // bytes
	aof, lastWrite, lastRewrite bool
}

// StateCollector exports how Redis itself is. It asks Redis at most once a second; while Redis does not answer it exports
// afterwrite_redis_up alone.
type StateCollector struct {
	cache *Cache

	mu    sync.Mutex
	state state
	err   error
	at    time.Time
}

// NewStateCollector returns a StateCollector for the Redis of c.
func (c *Cache) NewStateCollector() *StateCollector { return &StateCollector{cache: c} }

// Describe implements prometheus.Collector.
func (*StateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{redisUpDesc, usedDesc, maxDesc, aofDesc, aofWriteDesc, aofRewriteDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector. It blocks for at most two seconds.
func (c *StateCollector) Collect(ch chan<- prometheus.Metric) {
	s, err := c.sample()
	gauge := func(desc *prometheus.Desc, value float64) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
	gauge(redisUpDesc, number(err == nil))
	if err != nil {
		return
	}
	gauge(usedDesc, float64(s.used))
	gauge(maxDesc, float64(s.max))
	gauge(aofDesc, number(s.aof))
	gauge(aofWriteDesc, number(s.lastWrite))
	gauge(aofRewriteDesc, number(s.lastRewrite))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (c *StateCollector) sample() (state, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) >= sampleAge {
		ctx, cancel := context.WithTimeout(context.Background(), sampleTimeout)
		defer cancel()
		c.state, c.err = c.cache.state(ctx)
		c.at = time.Now()
	}
	return c.state, c.err
}

// state asks Redis, on a cluster every master.
func (c *Cache) state(ctx context.Context) (state, error) {
	cluster, ok := c.client.(*redis.ClusterClient)
	if !ok {
		return nodeState(ctx, c.client)
	}
	var mu sync.Mutex
	var all []state
	err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		s, err := nodeState(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, s)
		return err
	})
	if err != nil {
		return state{}, err
	}
	return worst(all), nil
}

func nodeState(ctx context.Context, node redis.Cmdable) (state, error) {
	// All sections: before Redis 7 it takes one name at most.
	info, err := node.InfoMap(ctx).Result()
	if err != nil {
		return state{}, fmt.Errorf("ask redis how it is: %w", err)
	}
	memory, persistence := info["Memory"], info["Persistence"]
	s := state{
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

// worst is the state that a cluster is in: its memory is that of the fullest node.
func worst(nodes []state) state {
	if len(nodes) == 0 {
		return state{}
	}
	w := nodes[0]
	for _, s := range nodes[1:] {
		if fullness(s) > fullness(w) {
			w.used, w.max = s.used, s.max
		}
		w.aof = w.aof && s.aof
		w.lastWrite = w.lastWrite && s.lastWrite
		w.lastRewrite = w.lastRewrite && s.lastRewrite
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
