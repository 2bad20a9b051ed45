package worker

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// Postgres is fast while a statement takes less than fastStatement, and slow if one takes more than slowStatement.
	fastStatement = 10 * time.Millisecond
	slowStatement = 50 * time.Millisecond

	// smallestShare is the largest batch divided by the smallest, which is used while Postgres is fast.
	smallestShare = 5

	// shortestPause is the shortest time between two epochs of a shard. Pauses are so long that flushing a shard takes at most 1/pauseShare
	// of the time.
	shortestPause = 100 * time.Millisecond
	pauseShare    = 20

	// coalescing is the number of writes per row that makes a pause worthwhile: it is then as long as possible.
	coalescing = 2
)

// batching adapts the size of batches, and how long an epoch stays open, to the speed of Postgres: small and often while Postgres is fast,
// large and rare while it is slow or the backlog is large. It is safe for concurrent use.
type batching struct {
	most     int           // rows
	interval time.Duration // the longest pause

	mu       sync.Mutex
	size     int
	limits   map[counter.Shard]limit
	took     time.Duration // by one epoch, smoothed
	slow     bool          // the last statement was slow
	perRow   float64       // writes, smoothed
	rowsSize prometheus.Gauge
	pauses   prometheus.Gauge
}

// limit bounds the batches of a shard after a statement timeout. It does not grow during the search for the slow row: otherwise the
// statements before that row would make it grow as much as each timeout makes it shrink.
type limit struct {
	rows    int
	looking bool
}

func newBatching(most int, interval time.Duration, r prometheus.Registerer) *batching {
	gauge := func(name, help string) prometheus.Gauge {
		return promauto.With(r).NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	b := &batching{
		most: most, interval: interval, size: max(most/smallestShare, 1), perRow: coalescing, limits: make(map[counter.Shard]limit),
		rowsSize: gauge("afterwrite_flush_batch_limit",
			"Current limit of keys in one upsert of this worker; it adapts to the speed of Postgres."),
		pauses: gauge("afterwrite_flush_pause_seconds",
			"How long this worker currently lets writes gather in a shard; it adapts to the speed of Postgres."),
	}
	b.show()
	return b
}

// show sets the gauges. The lock is held, or b is not shared yet.
func (b *batching) show() {
	rows := b.size
	for _, limit := range b.limits {
		rows = min(rows, limit.rows)
	}
	b.rowsSize.Set(float64(rows))
	b.pauses.Set(b.wait().Seconds())
}

// rows returns the size of a shard's next statement.
func (b *batching) rows(shard counter.Shard) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit, found := b.limits[shard]; found {
		return min(b.size, limit.rows)
	}
	return b.size
}

// kept records a successful statement. backlog is the number of entries that waited, including its rows.
func (b *batching) kept(shard counter.Shard, rows int, took time.Duration, backlog int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow = took > slowStatement
	switch {
	case b.slow, backlog > b.size:
		b.size = min(2*b.size, b.most)
	case took < fastStatement:
		b.size = max(b.size-b.size/8, b.most/smallestShare, 1)
	}
	// A statement smaller than the limit proves nothing.
	if limit, found := b.limits[shard]; found && !limit.looking && rows >= limit.rows {
		if limit.rows += limit.rows/8 + 1; limit.rows < b.most {
			b.limits[shard] = limit
		} else {
			delete(b.limits, shard)
		}
	}
	b.show()
}

// missed records that a statement exceeded the statement timeout. The shard's batches have half as many rows from now on, until the slow
// row is found or an epoch was flushed without it; then they slowly grow again.
func (b *batching) missed(shard counter.Shard, rows int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits[shard], b.slow = limit{rows: max(rows/2, 1), looking: true}, true
	b.show()
}

// isolated records that the slow row was alone in its statement.
func (b *batching) isolated(shard counter.Shard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found(shard)
}

// found ends the search for a slow row. The lock is held.
func (b *batching) found(shard counter.Shard) {
	if limit, found := b.limits[shard]; found {
		limit.looking = false
		b.limits[shard] = limit
	}
}

// epoch records how long an epoch took to flush, and its average number of writes per row.
func (b *batching) epoch(shard counter.Shard, took time.Duration, writesPerRow float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found(shard)
	b.took += (took - b.took) / 4
	b.perRow += (writesPerRow - b.perRow) / 4
	b.show()
}

// pause returns how long an epoch should stay open now.
func (b *batching) pause() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wait()
}

func (b *batching) wait() time.Duration {
	if b.slow || b.perRow >= coalescing {
		return b.interval
	}
	return min(max(pauseShare*b.took, shortestPause), b.interval)
}
