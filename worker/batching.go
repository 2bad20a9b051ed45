package worker

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/afterwrite/afterwrite/internal/counter"
)

const (
	// fastStatement is what one takes at most while Postgres is fast, and slowStatement from when on it is slow.
	fastStatement = 10 * time.Millisecond
	slowStatement = 50 * time.Millisecond

	// smallestShare is the smallest size of a batch while Postgres is fast, as a part of the largest.
	smallestShare = 5

	// shortestPause is the shortest time between two epochs of a shard. Pauses are so long that flushing a shard takes a
	// pauseShare of the time at most.
	shortestPause = 100 * time.Millisecond
	pauseShare    = 20

	// coalescing is how many writes an average row has to be made of for a pause to pay: then it is as long as it may be.
	coalescing = 2
)

// batching is how many rows go into one statement, and how long an epoch stays open. It follows what Postgres takes: small and
// often while that is little, larger and rarer when Postgres is slow or the backlog is large. It is safe for concurrent use.
type batching struct {
	most     int           // rows
	interval time.Duration // the longest pause

	mu       sync.Mutex
	size     int
	limits   map[counter.Shard]limit
	took     time.Duration // by an epoch, smoothed
	slow     bool          // the last statement was
	perRow   float64       // writes, smoothed
	rowsSize prometheus.Gauge
	pauses   prometheus.Gauge
}

// limit is a bound that a statement timeout has set for a shard. While the row is looked for that takes so long it does not grow:
// else the statements before that row would make it grow as much as each timeout makes it smaller.
type limit struct {
	rows    int
	looking bool
}

func newBatching(most int, interval time.Duration, r prometheus.Registerer) *batching {
	b := &batching{
		most: most, interval: interval, size: max(most/smallestShare, 1), perRow: coalescing, limits: make(map[counter.Shard]limit),
		rowsSize: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "afterwrite_flush_batch_limit",
			Help: "Keys that this worker puts into one upsert at most at the moment; it follows what Postgres takes.",
		}),
		pauses: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "afterwrite_flush_pause_seconds",
			Help: "How long this worker leaves writes to gather in a shard at the moment; it follows what Postgres takes.",
		}),
	}
	r.MustRegister(b.rowsSize, b.pauses)
	b.show()
	return b
}

// show sets the gauges. The lock is held, or nobody else has b yet.
func (b *batching) show() {
	rows := b.size
	for _, limit := range b.limits {
		rows = min(rows, limit.rows)
	}
	b.rowsSize.Set(float64(rows))
	b.pauses.Set(b.wait().Seconds())
}

// rows is the size of the next statement of a shard.
func (b *batching) rows(shard counter.Shard) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit, found := b.limits[shard]; found {
		return min(b.size, limit.rows)
	}
	return b.size
}

// kept notes that a statement of so many rows got through, with so many left of which it was a part.
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
	// A smaller statement than the limit proves nothing.
	if limit, found := b.limits[shard]; found && !limit.looking && rows >= limit.rows {
		if limit.rows += limit.rows/8 + 1; limit.rows < b.most {
			b.limits[shard] = limit
		} else {
			delete(b.limits, shard)
		}
	}
	b.show()
}

// missed notes that a statement of so many rows took longer than the statement timeout: half as many from now on in this shard,
// until the row that takes so long is found, or an epoch was flushed without one; then slowly more again.
func (b *batching) missed(shard counter.Shard, rows int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limits[shard], b.slow = limit{rows: max(rows/2, 1), looking: true}, true
	b.show()
}

// isolated notes that the row which takes so long was alone in its statement.
func (b *batching) isolated(shard counter.Shard) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found(shard)
}

// found needs mu.
func (b *batching) found(shard counter.Shard) {
	if limit, found := b.limits[shard]; found {
		limit.looking = false
		b.limits[shard] = limit
	}
}

// epoch notes that one was flushed in so long, whose rows are made of so many writes each.
func (b *batching) epoch(shard counter.Shard, took time.Duration, writesPerRow float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.found(shard)
	b.took += (took - b.took) / 4
	b.perRow += (writesPerRow - b.perRow) / 4
	b.show()
}

// pause is how long an epoch should stay open.
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
