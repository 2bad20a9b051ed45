package report

import (
	"errors"
	"fmt"
)

// Count is what a run says it wrote, seen from three sides.
type Count struct {
	// Stored is by how much the sum of all counters has grown, after the drain.
	Stored int64 `json:"stored"`
	// Acknowledged is what the server itself says it has accepted; -1: it does not say.
	Acknowledged int64 `json:"acknowledged"`
	// Unknown is how many more the server has answered with outcome_unknown: it may have carried them out. Nobody heard that,
	// since their clients had hung up, as the load generator does with what is in flight at its end.
	Unknown int64 `json:"unknown"`
	// Load is what the load generator saw answered.
	Load int64 `json:"load"`
	// Cut is how many answers the load generator may have missed: it drops what is in flight at its end, one request for
	// each connection of each of its runs, with as many operations as a request has.
	Cut int64 `json:"cut"`
}

// Check returns an error unless the run adds up: what is stored is exactly what was acknowledged, but for those whose clients
// had hung up, and it is what the load generator saw, but for what it cut off.
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
