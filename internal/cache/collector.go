package cache

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// sampleAge bounds the age of a sample, which scrapes share: many cost Redis as little as one.
	sampleAge = time.Second
	// sampleTimeout bounds how long a scrape waits for Redis.
	sampleTimeout = 2 * time.Second
)

func gaugeDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, nil, nil)
}

var (
	dirtyDesc = gaugeDesc("afterwrite_dirty_keys",
		"Dirty counters, whose newest state Postgres lacks, without dead letters.")
	deadDesc = gaugeDesc("afterwrite_dead_keys",
		"Counters whose row Postgres refused in all attempts.")
	oldestDesc = gaugeDesc("afterwrite_oldest_dirty_seconds",
		"Time since the oldest unsynced write, without counters that are dead or wait for a retry.")
	recordsDesc = gaugeDesc("afterwrite_history_pending",
		"Operations of counters with a history that wait in Redis for Postgres.")
	mostRecordsDesc = gaugeDesc("afterwrite_history_pending_max",
		"Those of the shard that has the most.")
	uncountedDesc = gaugeDesc("afterwrite_uncounted_shards",
		"Shards whose Redis node does not answer: their counters are in no gauge, and accept no writes.")
	redisUpDesc = gaugeDesc("afterwrite_redis_up",
		"1 while Redis (on a cluster, every node) serves counters to this process, else 0.")
	usedDesc = gaugeDesc("afterwrite_redis_memory_used_bytes",
		"Memory that Redis uses; on a cluster, by the node nearest to its maxmemory.")
	maxDesc = gaugeDesc("afterwrite_redis_memory_max_bytes",
		"The maxmemory of that Redis; 0: it has none.")
	aofDesc = gaugeDesc("afterwrite_redis_aof_enabled",
		"1 while Redis (on a cluster, every node) writes an append-only file, else 0.")
	aofWriteDesc = gaugeDesc("afterwrite_redis_aof_last_write_ok",
		"0 if the last write to Redis's append-only file failed (on a cluster, on any node), else 1.")
	aofRewriteDesc = gaugeDesc("afterwrite_redis_aof_last_rewrite_ok",
		"0 if the last rewrite of Redis's append-only file failed (on a cluster, on any node), else 1.")
)

// Collector exports the Backlog, whether Redis serves counters, and what Redis reports about its memory and its append-only file. It reads
// Redis at most once a second. It omits what is unknown: the backlog while no shard answers, and Redis's own state while Redis is away or
// loading its data, or if an ACL forbids INFO.
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
		dirtyDesc, deadDesc, oldestDesc, recordsDesc, mostRecordsDesc, uncountedDesc, redisUpDesc, usedDesc, maxDesc,
		aofDesc, aofWriteDesc, aofRewriteDesc,
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
	gauge(redisUpDesc, number(b.Uncounted == 0)) // not by INFO or PING, which a Redis answers even if it serves no counters
	if b.Uncounted < c.cache.shards {
		gauge(dirtyDesc, float64(b.Dirty))
		gauge(deadDesc, float64(b.Dead))
		gauge(oldestDesc, b.Oldest.Seconds())
		gauge(recordsDesc, float64(b.Records))
		gauge(mostRecordsDesc, float64(b.MostRecords))
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

// sample returns values that are at most a second old. It reads both at once, so that a hanging node does not use up the time of the
// second.
func (c *Collector) sample() (Backlog, Info) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) >= sampleAge {
		ctx, cancel := context.WithTimeout(context.Background(), sampleTimeout)
		defer cancel()
		var asking sync.WaitGroup
		asking.Go(func() { c.info, _ = ReadInfo(ctx, c.cache.client) }) // not Known if Redis does not answer
		c.backlog, _ = c.cache.Backlog(ctx)                             // Uncounted shows which shards do not answer
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
