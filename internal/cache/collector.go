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
)

// Collector exports the Backlog as metrics. It asks Redis at most once a second, and exports nothing while Redis does
// not answer.
type Collector struct {
	cache *Cache

	mu      sync.Mutex
	backlog Backlog
	err     error
	at      time.Time
}

// NewCollector returns a Collector for c.
func (c *Cache) NewCollector() *Collector { return &Collector{cache: c} }

// Describe implements prometheus.Collector.
func (*Collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- dirtyDesc
	ch <- deadDesc
	ch <- oldestDesc
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	b, err := c.Sample(context.Background())
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(dirtyDesc, prometheus.GaugeValue, float64(b.Dirty))
	ch <- prometheus.MustNewConstMetric(deadDesc, prometheus.GaugeValue, float64(b.Dead))
	ch <- prometheus.MustNewConstMetric(oldestDesc, prometheus.GaugeValue, b.Oldest.Seconds())
}

// Sample returns a Backlog that is at most a second old. It blocks for at most two seconds.
func (c *Collector) Sample(ctx context.Context) (Backlog, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) >= sampleAge {
		ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
		defer cancel()
		c.backlog, c.err = c.cache.Backlog(ctx)
		c.at = time.Now()
	}
	return c.backlog, c.err
}
