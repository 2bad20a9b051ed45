package report

import (
	"errors"
	"fmt"
)

// Count is the number of writes of a run, from three sources.
type Count struct {
	// Stored is the growth of the sum of all counters, after the drain.
	Stored int64 `json:"stored"`
	// Acknowledged is the server's own count of accepted writes; -1: it has none.
	Acknowledged int64 `json:"acknowledged"`
	// Unknown is the number of further writes with outcome_unknown, which may have been applied. Their clients had hung up: the load
	// generator does so at its end.
	Unknown int64 `json:"unknown"`
	// Load is the number of answers that the load generator received.
	Load int64 `json:"load"`
	// Cut is the number of answers that the load generator may have missed: at its end it drops one request in flight for each
	// connection, with all operations of the request.
	Cut int64 `json:"cut"`
}

// Check returns an error unless the run adds up: Stored is Acknowledged, give or take Unknown, and it is Load, give or take Cut.
func (c Count) Check() error {
	switch missed := c.Stored - c.Load; {
	case c.Load <= 0:
		return errors.New("no write was answered")
	case c.Acknowledged >= 0 && (c.Stored < c.Acknowledged || c.Stored > c.Acknowledged+c.Unknown):
		return fmt.Errorf("%d acknowledged and %d with an unknown outcome, but %d stored", c.Acknowledged, c.Unknown, c.Stored)
	case c.Unknown > c.Cut:
		return fmt.Errorf("%d with an unknown outcome, of which %d may have been cut off", c.Unknown, c.Cut)
	case missed < 0:
		return fmt.Errorf("%d answered, but only %d stored", c.Load, c.Stored)
	case missed > c.Cut:
		return fmt.Errorf("%d stored, but only %d answered, of which %d may have been cut off", c.Stored, c.Load, c.Cut)
	}
	return nil
}
