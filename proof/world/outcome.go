package world

import "github.com/afterwrite/afterwrite/internal/counter"

// Outcome is what a client can conclude about a write.
type Outcome uint8

// The outcomes.
const (
	Acknowledged  Outcome = iota + 1 // applied
	Refused                          // never applied
	Indeterminate                    // maybe applied, now or later; applied, but maybe lost in a failover
)

// OutcomeOf returns the outcome of a write that was answered with an error code. expected is false for codes that a load of correct
// increments, sets and deletes must not get.
func OutcomeOf(code string) (o Outcome, expected bool) {
	switch counter.Code(code) {
	case counter.CodeBackpressure, counter.CodeOverloaded, counter.CodeCacheFull, counter.CodeCacheUnavailable,
		counter.CodeDatabaseUnavailable, counter.CodeNotFound:
		return Refused, true
	case counter.CodeOutcomeUnknown, counter.CodeNotDurable:
		return Indeterminate, true
	default:
		return Indeterminate, false
	}
}
