package worker

import (
	"context"
	"time"
)

// patience is how long a drain waits for its turn.
const patience = 50 * time.Millisecond

// turns lets the drains of a process come one after the other while each is short: several at once are done no sooner then, and
// whoever else needs the processors that Postgres and Redis run on waits longer. A drain that has waited for its patience goes
// ahead all the same: where Postgres is slow or far away, drains overlap. nil: none waits.
type turns chan struct{}

func newTurns() turns { return make(turns, 1) }

// wait blocks until it is this drain's turn, or it has waited long enough, or ctx ends. The function that it returns ends
// the turn.
func (t turns) wait(ctx context.Context) (end func()) {
	if t == nil {
		return func() {}
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case t <- struct{}{}:
		return func() { <-t }
	case <-timer.C:
	case <-ctx.Done():
	}
	return func() {}
}
