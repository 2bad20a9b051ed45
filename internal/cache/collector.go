package cache

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// sampleAge is how old the numbers may be that a scrape gets: scrapes of many are as cheap as of one.
	sampleAge = time.Second
	// sampleTimeout bounds what a scrape waits for Redis.
	sampleTimeout = 2 * time.Second
)

var (
	dirtyDesc = prometheus.NewDesc("afterwrite_dirty_keys",
		"Counters whose newest state Postgres does not have yet, without the dead ones.", nil, nil)
	deadDesc = prometheus.NewDesc("afterwrite_dead_keys",
		"Counters whose row Postgres refused for good.", nil, nil)
	oldestDesc = prometheus.NewDesc("afterwrite_oldest_dirty_seconds",
		"Time since the first unsynced write of all dirty counters, without those dead or waiting for a retry.", nil, nil)
	uncountedDesc = prometheus.NewDesc("afterwrite_uncounted_shards",
		"Shards that Redis, on a cluster their node, does not answer for: their counters are in no gauge, and take no writes.", nil, nil)
	redisUpDesc = prometheus.NewDesc("afterwrite_redis_up",
		"1 while Redis, on a cluster every node, serves counters to this process, else 0.", nil, nil)
)

// Collector exports the Backlog as metrics, and with it whether Redis serves counters: INFO and PING are answered by one that does
// not. It asks Redis at most once a second. Of shards that cannot be asked it exports how many they are.
type Collector struct {
	cache *Cache

	mu      sync.Mutex
	backlog Backlog
	at      time.Time
}

// NewCollector returns a Collector for c.
func (c *Cache) NewCollector() *Collector { return &Collector{cache: c} }

// Describe implements prometheus.Collector.
func (*Collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- dirtyDesc
	ch <- deadDesc
	ch <- oldestDesc
	ch <- uncountedDesc
	ch <- redisUpDesc
}

// Collect implements prometheus.Collector. It blocks for at most two seconds.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	b := c.sample(context.Background())
	gauge(ch, uncountedDesc, float64(b.Uncounted))
	gauge(ch, redisUpDesc, number(b.Uncounted == 0))
	if b.Uncounted == c.cache.shards {
		return
	}
	gauge(ch, dirtyDesc, float64(b.Dirty))
	gauge(ch, deadDesc, float64(b.Dead))
	gauge(ch, oldestDesc, b.Oldest.Seconds())
}

// sample returns a Backlog that is at most a second old.
func (c *Collector) sample(ctx context.Context) Backlog {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) >= sampleAge {
		ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
		defer cancel()
		c.backlog, _ = c.cache.Backlog(ctx) // it says of how many shards it is not
		c.at = time.Now()
	}
	return c.backlog
}

func gauge(ch chan<- prometheus.Metric, desc *prometheus.Desc, value float64) {
	ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
