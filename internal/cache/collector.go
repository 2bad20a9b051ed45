package cache

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// sampleAge bounds the age of what a scrape gets: many scrapes cost Redis as little as one.
	sampleAge = time.Second
	// sampleTimeout bounds how long a scrape waits for Redis.
	sampleTimeout = 2 * time.Second
)

func gaugeDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, nil, nil)
}

var (
	dirtyDesc = gaugeDesc("afterwrite_dirty_keys",
		"Counters whose newest state Postgres does not have yet, without the dead ones.")
	deadDesc = gaugeDesc("afterwrite_dead_keys",
		"Counters whose row Postgres refused for good.")
	oldestDesc = gaugeDesc("afterwrite_oldest_dirty_seconds",
		"Time since the first unsynced write of all dirty counters, without those dead or waiting for a retry.")
	uncountedDesc = gaugeDesc("afterwrite_uncounted_shards",
		"Shards that Redis, on a cluster their node, does not answer for: their counters are in no gauge, and take no writes.")
	redisUpDesc = gaugeDesc("afterwrite_redis_up",
		"1 while Redis, on a cluster every node, serves counters to this process, else 0.")
	usedDesc = gaugeDesc("afterwrite_redis_memory_used_bytes",
		"Memory that Redis uses; on a cluster, of the node that is nearest to its maxmemory.")
	maxDesc = gaugeDesc("afterwrite_redis_memory_max_bytes",
		"The maxmemory of that Redis; 0: it has none.")
	aofDesc = gaugeDesc("afterwrite_redis_aof_enabled",
		"1 while Redis, on a cluster every node, writes an append-only file, else 0.")
	aofWriteDesc = gaugeDesc("afterwrite_redis_aof_last_write_ok",
		"0 while the last write to the append-only file of Redis, on a cluster of any node, has failed, else 1.")
	aofRewriteDesc = gaugeDesc("afterwrite_redis_aof_last_rewrite_ok",
		"0 while the last rewrite of the append-only file of Redis, on a cluster of any node, has failed, else 1.")
)

// Collector exports the Backlog, whether Redis serves counters, and what Redis reports about its memory and its append-only file. It asks
// Redis at most once a second. It leaves out what it does not know: the backlog while no shard answers, Redis's own state while Redis
// is away, loads its data, or an ACL forbids INFO.
type Collector struct {
	cache *Cache

	mu      sync.Mutex
	backlog Backlog
	info    Info
	at      time.Time
}

// NewCollector returns a Collector for c.
func (c *Cache) NewCollector() *Collector { return &Collector{cache: c} }

// Describe implements prometheus.Collector.
func (*Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		dirtyDesc, deadDesc, oldestDesc, uncountedDesc, redisUpDesc, usedDesc, maxDesc, aofDesc, aofWriteDesc, aofRewriteDesc,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector. It blocks for at most two seconds.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	b, info := c.sample()
	gauge := func(desc *prometheus.Desc, value float64) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
	gauge(uncountedDesc, float64(b.Uncounted))
	gauge(redisUpDesc, number(b.Uncounted == 0)) // INFO and PING are answered also by a Redis that does not serve counters
	if b.Uncounted < c.cache.shards {
		gauge(dirtyDesc, float64(b.Dirty))
		gauge(deadDesc, float64(b.Dead))
		gauge(oldestDesc, b.Oldest.Seconds())
	}
	if info.Used > 0 {
		gauge(usedDesc, float64(info.Used))
		gauge(maxDesc, float64(info.Limit))
	}
	if info.AOFKnown {
		gauge(aofDesc, number(info.AOF))
		gauge(aofWriteDesc, number(!info.AOFWriteFailing))
		gauge(aofRewriteDesc, number(!info.AOFRewriteFailing))
	}
}

// sample returns what is at most a second old. It asks for both at once, so that a node that hangs delays neither.
func (c *Collector) sample() (Backlog, Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) >= sampleAge {
		ctx, cancel := context.WithTimeout(context.Background(), sampleTimeout)
		defer cancel()
		var asking sync.WaitGroup
		asking.Go(func() { c.info, _ = ReadInfo(ctx, c.cache.client) }) // nothing is known of a Redis that does not answer
		c.backlog, _ = c.cache.Backlog(ctx)                             // it counts the shards that do not answer
		asking.Wait()
		c.at = time.Now()
	}
	return c.backlog, c.info
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
