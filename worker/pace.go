package worker

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// outageDelay is the shortest wait before a task is tried again after an outage; up to twice as much is added by
	// chance, so that not all come back at once.
	outageDelay = time.Second

	// outageGap is the time between two retries of one worker while there are many: 10 a second, whatever waits. A probe
	// of Postgres needs no more, and each costs Redis some thirty commands of Asynq's bookkeeping.
	outageGap = 100 * time.Millisecond

	// maxOutageDelay bounds the wait, and with outageGap how many tasks have a retry of their own: 300.
	maxOutageDelay = 30 * time.Second
)

// pace spreads the retries of one worker's tasks that failed for reasons which are not theirs, by giving each a moment of its
// own. Asynq does not count such failures, so it tells nothing by which a delay could grow.
type pace struct {
	mu   sync.Mutex
	next time.Time // the first moment that is not taken
}

// take returns how long a task that failed now has to wait.
func (p *pace) take(now time.Time) time.Duration {
	delay := outageDelay + rand.N(2*outageDelay) //nolint:gosec // chance, not a secret
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full(now) { // it is one that cannot be let go: spread over the second half of the longest wait
		return maxOutageDelay - rand.N(maxOutageDelay/2) //nolint:gosec // likewise
	}
	turn := now.Add(outageDelay)
	if p.next.After(turn) {
		turn = p.next
	}
	p.next = turn.Add(outageGap)
	return max(delay, turn.Sub(now))
}

// full reports that there is no moment left within maxOutageDelay.
func (p *pace) full(now time.Time) bool { return p.next.Sub(now) > maxOutageDelay }
