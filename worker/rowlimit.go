package worker

import "sync/atomic"

// rowLimit is how many rows one statement may have. It is the whole batch, unless Postgres has become so slow that a batch
// takes longer than its statement timeout: then half as many, until it gets through, and slowly more again.
type rowLimit struct{ limit atomic.Int64 } // 0: no limit

// rows is the size of the next statement, most at most.
func (l *rowLimit) rows(most int) int {
	if limit := int(l.limit.Load()); limit > 0 {
		return min(limit, most)
	}
	return most
}

// missed notes that a statement of so many rows took too long.
func (l *rowLimit) missed(rows int) { l.limit.Store(int64(max(rows/2, 1))) }

// kept notes that a statement of so many rows got through.
func (l *rowLimit) kept(rows int) {
	// A smaller statement proves nothing. Another flush may change the limit at the same time: no matter.
	if limit := l.limit.Load(); limit > 0 && int64(rows) >= limit {
		l.limit.Store(limit + limit/8 + 1)
	}
}
